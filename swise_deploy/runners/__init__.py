"""Torch networks as runners, on a CPU and on a GPU."""

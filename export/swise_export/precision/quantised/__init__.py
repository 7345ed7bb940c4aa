"""Graphs in INT8 and FP8: what is rounded in them, and in which form."""

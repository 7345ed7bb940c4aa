"""Runtimes available for a network on this machine, and the fastest of them."""

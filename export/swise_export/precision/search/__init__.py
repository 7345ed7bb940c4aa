"""Searches for what a lower precision may take, by measuring it."""

"""Counting, measuring and reporting."""

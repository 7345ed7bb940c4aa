"""Benchmark results as values and JSON, and the regression gate."""

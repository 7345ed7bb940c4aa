"""Measurements: latency, memory, energy, layers, quality, counts."""

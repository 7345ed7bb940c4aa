"""Predictions: how fast a graph could run on a device that is not here, and how fast it will."""

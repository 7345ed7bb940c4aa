"""Engines validated, loaded and executed."""

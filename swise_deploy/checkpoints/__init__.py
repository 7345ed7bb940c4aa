"""Weights from files: recognised by content, loaded without executing code."""

"""Torch networks traced to ONNX, and the cache of exported files."""

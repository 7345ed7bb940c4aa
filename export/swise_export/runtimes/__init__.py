"""Runtimes that execute ONNX files, one module each, and the table of all runtimes."""

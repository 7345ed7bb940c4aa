"""Runtimes that execute ONNX files, one file each."""

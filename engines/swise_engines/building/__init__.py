"""The swise-build command: an ONNX file compiled to an engine."""

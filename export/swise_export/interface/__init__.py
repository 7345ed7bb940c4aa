"""The pictures that an ONNX file takes and gives, and their conversion."""

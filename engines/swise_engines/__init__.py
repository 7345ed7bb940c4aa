"""From an ONNX file to a TensorRT engine, and the runners of both."""

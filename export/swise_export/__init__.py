"""From a torch network to a verified ONNX file."""

"""ONNX graphs: loading within limits, shapes, operators, weights, emulated fp16 rounding."""

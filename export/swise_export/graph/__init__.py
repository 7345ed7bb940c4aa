"""ONNX graphs: loading within limits, shapes, operators, weights, number formats, rounding."""

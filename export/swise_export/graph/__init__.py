"""ONNX graphs read: shapes, counts, activations, emulated fp16 rounding."""

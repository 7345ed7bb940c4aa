"""Analysis of ONNX graphs: their pictures, shapes, counts, activations, emulated fp16 rounding."""

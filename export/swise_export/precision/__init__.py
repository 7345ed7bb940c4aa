"""fp16, bf16, INT8, FP8: calibration, placement by measured drift, and graphs that result."""

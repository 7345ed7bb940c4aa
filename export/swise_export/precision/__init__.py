"""fp16, bf16 and INT8: calibration, placement by measured drift, and the graphs that result."""

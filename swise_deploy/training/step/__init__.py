"""One training step: forward, backward, optimiser, precision and CUDA graphs."""

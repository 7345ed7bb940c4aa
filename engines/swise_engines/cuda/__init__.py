"""CUDA through cuda-python or pycuda: memory, streams, graphs."""

"""The PyTorch core: networks, pictures, the super-resolution protocol, training."""

__version__ = "0.1.0"

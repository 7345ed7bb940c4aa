"""The PyTorch core: networks, pictures, the super-resolution protocol, training."""

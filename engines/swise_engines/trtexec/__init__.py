"""A folder for NVIDIA's trtexec on devices without this project's Python, and its results."""

"""Training pictures: decoded once, cropped at random, on the CPU or in GPU memory."""

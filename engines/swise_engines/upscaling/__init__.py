"""The swise-upscale command: pictures, folders and videos of any size."""

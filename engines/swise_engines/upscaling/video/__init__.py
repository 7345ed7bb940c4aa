"""Videos decoded, upscaled and encoded."""

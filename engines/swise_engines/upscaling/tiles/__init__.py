"""Pictures cut into tiles: how large, how they overlap, how they equal the full frame."""

"""Files written whole or not at all, and the folders that caches live in."""

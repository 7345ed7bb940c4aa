"""Initial weights and teacher networks of a run."""

"""The files, logs and scores of a run."""

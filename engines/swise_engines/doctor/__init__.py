"""The swise-doctor command: the state of this machine and how to fix it."""

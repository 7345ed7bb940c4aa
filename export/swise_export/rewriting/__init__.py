"""Networks rewritten into an equal form that runtimes execute faster."""

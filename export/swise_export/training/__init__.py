"""Quantisation-aware training for a precision plan, and the swise-train command."""

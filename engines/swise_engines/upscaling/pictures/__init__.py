"""Picture codecs at full depth, with their metadata."""

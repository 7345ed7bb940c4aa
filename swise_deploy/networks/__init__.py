"""The networks, one file each, and the table of them."""

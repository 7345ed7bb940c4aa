"""The verbs of `swise` that look at files and join the steps: info, compare, list, deploy."""

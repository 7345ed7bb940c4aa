"""Drift of an artefact against the fp32 torch network, and its budget."""

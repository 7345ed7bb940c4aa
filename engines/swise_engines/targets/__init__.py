"""Devices that engines are built for, with a source for every number."""

"""Benchmark subjects: the files and networks that are measured."""

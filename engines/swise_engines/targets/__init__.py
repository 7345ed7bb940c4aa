"""Devices that engines are built for, with a source for every number."""

from swise_deploy.public_names import moved_names

__getattr__ = moved_names(__name__)

"""The swise-build command: an ONNX file compiled to an engine."""

from swise_deploy.public_names import moved_names

__getattr__ = moved_names(__name__)

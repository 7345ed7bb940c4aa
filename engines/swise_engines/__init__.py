"""From an ONNX file to a TensorRT engine, and pictures and videos through either."""

from typing import TYPE_CHECKING

from swise_deploy.public_names import lazy_names

if TYPE_CHECKING:
    from swise_engines.building.build import build_engine as build_engine
    from swise_engines.building.options import BuildOptions as BuildOptions
    from swise_engines.running.runner import EngineRunner as EngineRunner
    from swise_engines.targets.catalogue import find_target as find_target
    from swise_engines.upscaling.upscaler import Upscaler as Upscaler

PUBLIC = {
    "build_engine": "swise_engines.building.build",
    "BuildOptions": "swise_engines.building.options",
    "EngineRunner": "swise_engines.running.runner",
    "find_target": "swise_engines.targets.catalogue",
    "Upscaler": "swise_engines.upscaling.upscaler",
}
"""Name to the module that defines it; imported when it is used."""

__getattr__ = lazy_names(__name__, PUBLIC)

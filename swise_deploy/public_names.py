"""Names that rooms export, imported when they are used; and names that have moved, still found.

`from swise_engines import Upscaler` loads one module and what it needs, not the whole room. A name
that docs/library.md promised under another module before 0.1.0 still works there, with a
DeprecationWarning that states the new one.

Every command imports this module before it handles Ctrl-C, so it imports next to nothing itself.
"""

import importlib
import sys

TYPE_CHECKING = False  # that of typing, whose import takes milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

MOVED_MODULES: dict[str, tuple[str, ...]] = {
    "swise_deploy.images": ("swise_deploy.pictures.files", "swise_deploy.pictures.folders"),
    "swise_deploy.imresize": ("swise_deploy.pictures.imresize",),
    "swise_deploy.metrics": ("swise_deploy.evaluation.metrics",),
    "swise_deploy.protocol": ("swise_deploy.evaluation.pairs",),
    "swise_deploy.models": (),
    "swise_deploy.models.bicubic": ("swise_deploy.networks.bicubic",),
    "swise_deploy.models.carn": ("swise_deploy.networks.carn",),
    "swise_deploy.models.checkpoint": ("swise_deploy.checkpoints.load",),
    "swise_deploy.models.cubic": ("swise_deploy.networks.parts.matlab_bicubic",),
    "swise_deploy.models.drcn": ("swise_deploy.networks.drcn",),
    "swise_deploy.models.fmen": ("swise_deploy.networks.fmen",),
    "swise_deploy.models.foreign": ("swise_deploy.checkpoints.foreign",),
    "swise_deploy.models.fsrcnn": ("swise_deploy.networks.fsrcnn",),
    "swise_deploy.models.heads": ("swise_deploy.networks.parts.upsamplers",),
    "swise_deploy.models.lbnet": ("swise_deploy.networks.lbnet",),
    "swise_deploy.models.luma": ("swise_deploy.networks.parts.luma",),
    "swise_deploy.models.padding": ("swise_deploy.networks.parts.padding",),
    "swise_deploy.models.pixel_range": ("swise_deploy.networks.parts.pixel_range",),
    "swise_deploy.models.published": ("swise_deploy.networks.published",),
    "swise_deploy.models.registry": ("swise_deploy.networks.registry",),
    "swise_deploy.models.resizing": ("swise_deploy.networks.parts.torch_bicubic",),
    "swise_deploy.models.shipped": ("swise_deploy.checkpoints.shipped",),
    "swise_deploy.models.smsr": ("swise_deploy.networks.smsr",),
    "swise_deploy.models.srcnn": ("swise_deploy.networks.srcnn",),
    "swise_deploy.models.swinir": ("swise_deploy.networks.swinir",),
    "swise_deploy.models.swisenet": (
        "swise_deploy.networks.swisenet",
        "swise_deploy.networks.parts.scale_wise",
    ),
    "swise_deploy.models.torch_gpu_runner": ("swise_deploy.runners.torch_gpu",),
    "swise_deploy.models.torch_runner": ("swise_deploy.runners.torch_cpu",),
    "swise_deploy.models.vdsr": ("swise_deploy.networks.vdsr",),
    "swise_export.exporting": ("swise_export.tracing.trace",),
    "swise_export.verified": ("swise_export.job",),
    "swise_export.export_config": ("swise_export.config",),
    "swise_export.deploy_form": ("swise_export.rewriting.deploy_form",),
    "swise_export.onnx_runner": ("swise_export.runtimes.onnxruntime",),
    "swise_export.openvino_runner": ("swise_export.runtimes.openvino",),
    "swise_export.drift": ("swise_export.verification.drift",),
    "swise_engines.cli_build": ("swise_engines.building.cli",),
    "swise_engines.cli_doctor": ("swise_engines.doctor.cli",),
    "swise_engines.cli_upscale": ("swise_engines.upscaling.cli",),
    "swise_export.cli_train": ("swise_export.training.cli",),
    "swise_engines.planning": ("swise_engines.building.options",),
    "swise_engines.engine_runner": ("swise_engines.running.runner",),
    "swise_engines.upscaler": ("swise_engines.upscaling.upscaler",),
}
"""Earlier module to the modules that hold its names now."""

MOVED_ATTRIBUTES: dict[str, dict[str, str]] = {
    "swise_engines.building": {"build_engine": "swise_engines.building.build"},
    "swise_engines.targets": {"find_target": "swise_engines.targets.catalogue"},
}
"""Earlier module that is a folder now, to its names and the modules that hold them now."""


def lazy_names(package: str, modules: "Mapping[str, str]") -> "Callable[[str], object]":
    """The `__getattr__` of a package that exports names of its modules.

    Args:
        package: The package's `__name__`.
        modules: Exported name to the module that defines it.
    """

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return find


def moved_names(package: str) -> "Callable[[str], object]":
    """The `__getattr__` of a folder whose name was a module's before; see MOVED_ATTRIBUTES."""

    def find(name: str) -> object:
        modules = MOVED_ATTRIBUTES[package]
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        _warn(f"{package}.{name}", f"{modules[name]}.{name}")
        return getattr(importlib.import_module(modules[name]), name)

    return find


def _warn(old: str, new: str) -> None:
    import warnings

    warnings.warn(f"{old} has moved: use {new}", DeprecationWarning, stacklevel=3)


class _MovedModules:
    """Finds modules of MOVED_MODULES; asked last, when nothing else knows a name."""

    def find_spec(
        self,
        fullname: str,
        path: "Sequence[str] | None",
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        del path, target
        if fullname not in MOVED_MODULES:
            return None
        from importlib.machinery import ModuleSpec

        # A loader by its methods; importlib.abc takes milliseconds.
        loader: Any = self
        return ModuleSpec(fullname, loader, is_package=not MOVED_MODULES[fullname])

    def create_module(self, spec: "ModuleSpec") -> None:
        del spec

    def exec_module(self, module: "ModuleType") -> None:
        old = module.__name__

        def find(name: str) -> object:
            for new in () if name.startswith("__") else MOVED_MODULES[old]:
                value = getattr(importlib.import_module(new), name, None)
                if value is not None:
                    _warn(f"{old}.{name}", f"{new}.{name}")
                    return value
            raise AttributeError(f"module {old!r} has no attribute {name!r}")

        module.__getattr__ = find  # type: ignore[method-assign]  # PEP 562


def find_moved_modules() -> None:
    """Let imports of moved modules succeed; harmless when called again."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())

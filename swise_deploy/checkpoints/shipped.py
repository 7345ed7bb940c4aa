"""Weights that ship with the package, and ONNX files made from them. No torch is needed."""

import re
from importlib import resources
from pathlib import Path

from swise_deploy.errors import InputError
from swise_deploy.precision import RestPrecision

WEIGHTS_SUFFIXES = frozenset({".safetensors", ".pth", ".pt"})
"""Of files that weights are read from."""

_NAMED = re.compile(r"(?P<name>\w+):x?(?P<scale>[1-9])")


def shipped_weights(name: str, scale: int) -> Path | None:
    """The weights file that ships with the package, or None where there is none yet."""
    return _existing(f"{name}_x{scale}.safetensors")


def shipped_onnx(name: str, scale: int, *, precision: RestPrecision = "fp16") -> Path | None:
    """The ONNX file, deploy form, that ships with the package, or None where there is none."""
    return _existing(f"{name}_x{scale}_{precision}.onnx")


def shipped_names() -> list[str]:
    """Networks and scales with shipped weights, such as "swisenet x2"."""
    return sorted(p.stem.replace("_x", " x") for p in _folder().glob("*.safetensors"))


def parse_named(text: str) -> tuple[str, int] | None:
    """Name and scale of "swisenet:2" or "swisenet:x2"; None for other texts and for files."""
    found = _NAMED.fullmatch(text)
    if found is None or Path(text).exists():
        return None
    return found["name"], int(found["scale"])


def resolve_weights(text: str) -> Path:
    """The file behind a path or the name of shipped weights, such as "swisenet:2".

    Raises:
        InputError: A name of the same form without shipped weights.
    """
    named = parse_named(text)
    if named is None:
        return Path(text)
    found = shipped_weights(*named)
    if found is None:
        shipped = ", ".join(name.replace(" x", ":") for name in shipped_names())
        raise InputError(f"no weights for {text} ship with this version. Shipped: {shipped}")
    return found


def resolve_onnx(text: str) -> Path:
    """The file behind a path or the name of a shipped fp16 ONNX file, such as "swisenet:2"."""
    named = parse_named(text)
    return (shipped_onnx(*named) if named else None) or Path(text)


def is_shipped(path: Path) -> bool:
    """True for a file of the package, beside which nothing may be written."""
    return path.parent == _folder()


def _existing(name: str) -> Path | None:
    path = _folder() / name
    return path if path.is_file() else None


def _folder() -> Path:
    return Path(str(resources.files("swise_deploy"))) / "weights"

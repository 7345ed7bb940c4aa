"""The weights that ship with the package. No torch is imported here."""

from importlib import resources
from pathlib import Path

WEIGHTS_SUFFIXES = frozenset({".safetensors", ".pth", ".pt"})
"""Of files that weights are read from."""


def shipped_weights(name: str, scale: int) -> Path | None:
    """The weights file that ships with the package, or None where there is none yet."""
    path = Path(str(resources.files("swise_deploy"))) / "weights" / f"{name}_x{scale}.safetensors"
    return path if path.is_file() else None


def shipped_names() -> list[str]:
    """Networks and scales with shipped weights, such as "swisenet x2"."""
    folder = Path(str(resources.files("swise_deploy"))) / "weights"
    return sorted(p.stem.replace("_x", " x") for p in folder.glob("*.safetensors"))

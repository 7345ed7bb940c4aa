"""Settings of a training run, read from recipes, TOML files and flags, and written as TOML."""

import contextlib
import dataclasses
import json
import os
import sys
import types
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

from swise_deploy.checkpoints.shipped import resolve_weights
from swise_deploy.command.console import choose
from swise_deploy.errors import InputError, first_line
from swise_deploy.storage.files import read_regular
from swise_deploy.training.config import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_BYTES = 1 << 20  # of a TOML file


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    folder = resources.files("swise_deploy.training") / "recipes"
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def recipe_text(name: str) -> str:
    """The TOML text of a recipe, comments and all.

    Raises:
        InputError: No recipe has this name.
    """
    choose(name, recipe_names(), what="recipe")
    folder = resources.files("swise_deploy.training") / "recipes"
    return (folder / f"{name}.toml").read_text(encoding="utf-8")


def config_from_layers(layers: Mapping[str, Mapping[str, object]]) -> TrainConfig:
    """Merge layers of settings, the later over the earlier, and check them.

    Args:
        layers: Settings by their source, such as "recipe gpu" or "flags", which messages name.

    Raises:
        InputError: An unknown name, a value of the wrong type, or `data` or `out` missing.
    """
    hints = get_type_hints(TrainConfig)
    merged: dict[str, object] = {}
    for source, settings in layers.items():
        for name, value in settings.items():
            if name not in hints:
                choose(name, hints, what=f"setting in {source}")
            merged[name] = _typed(value, hints[name], name=name, source=source)
    for name in ("data", "out"):
        if name not in merged:
            raise InputError(
                f"{name} is not given. Use --{name} DIR, or `{name} = ...` in the TOML file"
            )
    return TrainConfig(**merged)  # type: ignore[arg-type]  # every value was checked by its hint


def settings_from_toml(text: str, *, source: str) -> dict[str, object]:
    """Read the settings of a TOML document.

    Raises:
        InputError: It is no TOML.
    """
    try:
        return dict(tomllib.loads(text))
    except (ValueError, RecursionError) as error:  # numbers of too many digits, too deep nesting
        raise InputError(f"{source} is no valid TOML: {first_line(error)}") from error


def settings_from_file(path: Path) -> dict[str, object]:
    """Read the settings of a TOML file.

    Raises:
        InputError: It cannot be read, or is no TOML.
    """
    try:
        text = os.fsdecode(read_regular(path, max_bytes=_MAX_BYTES))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return settings_from_toml(text, source=str(path))


def toml_from_config(config: TrainConfig) -> str:
    """Write a config as TOML; unset paths are left out.

    Paths whose names are not UTF-8 keep their bytes where the text is written by `os.fsencode`.
    """
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None:
            lines.append(f"{field.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON's strings, booleans and integers are TOML's; so are its finite floats. TOML has no pairs
    # of surrogates and wants DEL escaped.
    text = json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")


def _typed(value: object, hint: object, *, name: str, source: str) -> object:
    """Check a setting against its type; TOML's arrays become tuples, strings become paths."""
    converted = _convert(value, hint)
    if converted is _WRONG:
        raise InputError(f"{name} in {source} is {value!r}; expected {_words(hint)}")
    if name == "init" and isinstance(converted, Path):
        return resolve_weights(str(converted))
    if name == "teacher" and isinstance(converted, tuple):
        return tuple(resolve_weights(str(path)) for path in converted)
    return converted


_WRONG = object()


def _convert(value: object, hint: object) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    converted = _WRONG
    if origin in (Union, types.UnionType):
        tried = (_convert(value, option) for option in arguments)
        converted = next((v for v in tried if v is not _WRONG), _WRONG)
    elif origin is tuple:
        converted = _convert_items(value, arguments)
    elif origin is Literal:
        converted = value if value in arguments else _WRONG
    elif hint is Path and isinstance(value, (str, Path)):
        converted = Path(value)
    elif hint is float and type(value) is int:
        with contextlib.suppress(OverflowError):  # beyond 1e308
            converted = float(value)
    elif isinstance(hint, type) and type(value) is hint:
        converted = value
    return converted


def _convert_items(value: object, arguments: tuple[object, ...]) -> object:
    repeated = len(arguments) == 2 and arguments[1] is Ellipsis
    if repeated and arguments[0] is Path and isinstance(value, (str, Path)):
        return (Path(value),)  # a folder by itself
    if not isinstance(value, (list, tuple)):
        return _WRONG
    if not repeated and len(value) != len(arguments):
        return _WRONG
    hints = [arguments[0]] * len(value) if repeated else arguments
    items = tuple(_convert(item, hint) for item, hint in zip(value, hints, strict=True))
    return _WRONG if _WRONG in items else items


def _words(hint: object) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    return getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)

"""Checkpoint files: every state dict in them, read without executing anything.

Files come from anybody. Sizes are checked before anything is unpacked, and whatever a reader raises
on damaged bytes becomes one message.
"""

import argparse
import collections
import contextlib
import datetime
import decimal
import fractions
import functools
import logging
import pathlib
import pickle
import re
import sys
import types
import uuid
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from swise_deploy.errors import InputError

logger = logging.getLogger(__name__)

MAX_FOREIGN_CLASSES = 32
"""Each of them takes another reading of the file."""

MAX_PICKLE_BYTES = 8 << 20
"""Of the part of an archive that describes the tensors: some hundred bytes for each of them."""

MAX_EXPANSION = 20
"""Bytes unpacked over bytes of the file; torch stores tensors uncompressed."""

_MAX_DEPTH = 4
_AVERAGE = re.compile(r"(?:^|[^a-zA-Z])(?i:ema)(?:$|[^a-zA-Z])|[a-z]EMA|(?i:shadow|averag|polyak)")
_COUNTERS = frozenset({"total_ops", "total_params", "n_averaged"})
"""Last parts of the names of counters that thop and torch's AveragedModel keep beside weights."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """A state dict inside a checkpoint.

    Attributes:
        place: The keys that lead to it, such as "model.state_dict"; empty for the file itself.
        tensors: Its tensors by name, wrappers of compiled modules and counters left out.
        counters: Names of the counters that were left out.
    """

    place: str
    tensors: Mapping[str, Tensor]
    counters: tuple[str, ...] = ()


def is_average(place: str) -> bool:
    """Tell by its place in a checkpoint whether a state dict is a moving average of the weights."""
    return _AVERAGE.search(place) is not None


def read_states(path: Path) -> list[StoredState]:
    """Read every state dict of a checkpoint, averaged weights first.

    Code in pickles is not executed. Plain values beside the weights are read: NumPy's numbers and
    arrays, namespaces, paths, dates. Objects of other programs, such as settings and schedulers,
    are left unread.

    Raises:
        InputError: The file is missing, damaged, no checkpoint, holds functions or nothing but
            objects of a program, or unpacks to many times its size.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder. Give the file with the weights")
    if not path.is_file():
        raise InputError(f"no weights at {path}. Check the path")
    unread: list[str] = []
    document = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path, unread)
    if not isinstance(document, Mapping):
        raise InputError(f"{path} holds a {type(document).__name__}; expected a state dict")
    states = list(_find_states(document, "", set(), 0))
    if not states and unread:
        raise InputError(_refusal(path, unread[0]))
    if not states:
        raise InputError(f"{path} holds no tensors; expected a state dict")
    if unread:
        logger.info("%s: objects beside the weights are left unread: %s", path, ", ".join(unread))
    return sorted(states, key=lambda state: not is_average(state.place))


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except OSError as error:
        raise InputError(f"cannot read weights {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(_damaged(path)) from error


def _read_pickle(path: Path, unread: list[str]) -> object:
    """Read a pickle; the names of classes whose objects are replaced go to `unread`."""
    _refuse_bombs(path)
    stand_in: type = _EmptyMapping
    while True:
        replaced = [(stand_in, name) for name in unread]
        try:
            with warnings.catch_warnings(), safe_globals([*_plain_values(), *replaced]):
                warnings.simplefilter("ignore")  # about what is refused just after
                return torch.load(path, map_location="cpu", weights_only=True)
        except OSError as error:
            raise InputError(f"cannot read weights {path}: {error.strerror or error}") from error
        except pickle.UnpicklingError as error:
            refused = re.search(r"GLOBAL (\S+)", str(error))
            name = refused.group(1) if refused else ""
            if not _is_foreign_class(name) or name in unread or len(unread) == MAX_FOREIGN_CLASSES:
                raise InputError(_refusal(path, name) if name else _damaged(path)) from error
            unread.append(name)
        except Exception as error:  # the reader raises anything on hostile bytes
            if not unread or stand_in is _NoValue:
                raise InputError(_damaged(path)) from error
            stand_in = _NoValue


class _EmptyMapping:
    """A stand-in for the classes of other programs: its objects are empty ordered dicts."""

    def __new__(cls, *_values: object, **_named: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()  # which torch's reader fills with items, where the class is a dict


class _NoValue:
    """A stand-in for classes whose objects are set from a tuple, which no dict can be."""

    def __init__(self, *_values: object, **_named: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


def _is_foreign_class(name: str) -> bool:
    """Tell by its full name a class of a program or of a library from a function.

    Classes are written in CapWords; NumPy makes its generators of random numbers by functions. The
    standard library is no program's own: its plain values are read, the rest of it is refused.
    """
    package, _, rest = name.partition(".")
    if not rest or package in sys.stdlib_module_names or package == "__builtin__":
        return False
    return package == "numpy" or rest.rpartition(".")[2].lstrip("_")[:1].isupper()


def _refuse_bombs(path: Path) -> None:
    """Refuse archives that state sizes which no checkpoint of their length has."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # a directory of damaged bytes
        raise InputError(_damaged(path)) from error
    size_bytes = path.stat().st_size
    unpacked = sum(member.file_size for member in members)
    described = sum(m.file_size for m in members if m.filename.endswith(".pkl"))
    if described > MAX_PICKLE_BYTES or unpacked > MAX_EXPANSION * size_bytes:
        raise InputError(
            f"{path} has {size_bytes:,} bytes and unpacks to {unpacked:,}, {described:,} of them "
            f"without tensors; expected at most {MAX_EXPANSION} times its size and "
            f"{MAX_PICKLE_BYTES:,} bytes. It is no checkpoint, or is damaged"
        )
    if any(Path(member.filename).name == "constants.pkl" for member in members):
        raise InputError(
            f"{path} is a TorchScript archive, not a checkpoint. Save its weights where torch is: "
            f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
        )


def _list_of(values: Iterable[object] = (), _max_length: object = None) -> list[object]:
    return list(values)


@functools.cache
def _plain_values() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Types that hold values and run no code of the file; under the names of other versions too."""
    core = getattr(np, "_core", None) or np.core
    numpy_names = ("numpy.core.multiarray", "numpy._core.multiarray")
    numpy_types = {type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDSUV"}
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        np.dtype,
        np.ndarray,
        *numpy_types,
        argparse.Namespace,
        types.SimpleNamespace,
        *((kind, f"builtins.{kind.__name__}") for kind in (dict, list, tuple, int, float, str)),
        OrderedDict,
        collections.defaultdict,
        (_list_of, "collections.deque"),  # the reader fills lists alone
        datetime.date,
        datetime.datetime,
        datetime.time,
        datetime.timedelta,
        datetime.timezone,
        decimal.Decimal,
        fractions.Fraction,
        uuid.UUID,
    ]
    for function in ("scalar", "_reconstruct"):
        numpy_own = getattr(core.multiarray, function)
        allowed += [(numpy_own, f"{module}.{function}") for module in numpy_names]
    for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
        paths = [f"{module}.{kind}" for module in ("pathlib", "pathlib._local")]
        allowed += [(pathlib.PurePosixPath, name) for name in paths]
    return allowed


def _refusal(path: Path, name: str) -> str:
    return (
        f"{path} holds a {name}, which is code and not weights, and is refused. Save the "
        "tensors alone where that code is at home: torch.save(model.state_dict(), 'weights.pth')"
    )


def _damaged(path: Path) -> str:
    hint = "; swise-build, swise-bench and swise-upscale take ONNX files"
    return (
        f"{path} is no checkpoint, or is damaged. Expected a whole .safetensors, .pt or .pth file"
        f"{hint if path.suffix.lower() == '.onnx' else ''}"
    )


def _find_states(
    document: Mapping[Any, Any], place: str, seen: set[int], depth: int
) -> Iterator[StoredState]:
    """The state dicts in nested mappings and namespaces, outer ones first; each once."""
    if id(document) in seen or depth > _MAX_DEPTH:
        return
    seen.add(id(document))
    tensors = {k: v for k, v in document.items() if isinstance(k, str) and _is_plain(v)}
    if tensors:
        yield _cleaned(place, tensors)
    for key, value in document.items():
        if isinstance(key, str) and isinstance(value, Mapping):
            yield from _find_states(value, f"{place}.{key}".lstrip("."), seen, depth + 1)


def _is_plain(value: object) -> bool:
    """Tell a tensor with memory for every value: one that few bytes cannot blow up."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return False
    with contextlib.suppress(RuntimeError, NotImplementedError):
        return value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    return False


def _cleaned(place: str, tensors: Mapping[str, Tensor]) -> StoredState:
    counters = tuple(k for k in tensors if k.rpartition(".")[2] in _COUNTERS)
    kept = {k.replace("_orig_mod.", ""): v for k, v in tensors.items() if k not in counters}
    return StoredState(place, kept, counters)

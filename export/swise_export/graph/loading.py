"""Loading and hashing of ONNX files with their external data."""

import contextlib
import functools
import hashlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from swise_deploy.checkpoints.shipped import WEIGHTS_SUFFIXES
from swise_deploy.errors import InputError, SwiseError, first_line
from swise_deploy.storage.files import sha256_of
from swise_export.graph.limits import check_limits
from swise_export.manifest import facts_of_metadata

_MAX_MESSAGE_BYTES = (1 << 31) - 1  # of protobuf
_MAX_INLINE_BYTES = 1 << 30  # a protobuf message holds 2 GiB


def load_onnx(path: Path, *, external_data: bool = True) -> onnx.ModelProto:
    """Load an ONNX file within the limits of `limits`.

    Args:
        path: The file.
        external_data: Also load weights that are stored outside the file.

    Raises:
        InputError: The file is missing, damaged, empty or beyond the limits.
    """
    if not path.is_file():
        raise InputError(f"no ONNX file at {path}. Check the path")
    if (size_bytes := path.stat().st_size) > _MAX_MESSAGE_BYTES:
        raise InputError(
            f"{path} has {size_bytes:,} bytes; an ONNX file has at most {_MAX_MESSAGE_BYTES:,}. "
            "Save its weights as external data"
        )
    try:
        model = onnx.load(path, load_external_data=external_data)
    except Exception as error:  # protobuf's DecodeError has no stubs, onnx raises several kinds
        _refuse_checkpoint(path)
        raise InputError(
            f"cannot read {path}: {first_line(error)}. Expected a whole ONNX file"
        ) from error
    if not model.graph.node:
        _refuse_checkpoint(path)
        raise InputError(f"{path} has no nodes. Expected a whole ONNX file")
    check_limits(model, path)
    return model


def _refuse_checkpoint(path: Path) -> None:
    if path.suffix.lower() in WEIGHTS_SUFFIXES:
        onnx_name = path.with_suffix(".onnx").name
        raise InputError(
            f"{path} is a checkpoint: swise-export first. "
            f"swise-export {shlex.quote(str(path))} -o {shlex.quote(onnx_name)}"
        )


def session_source(path: Path) -> str | bytes:
    """The source from which ONNX Runtime loads a file: its path, or its content as one file.

    ONNX Runtime's shape inference does not read external data, so it refuses a file whose small
    tensors are stored there, such as the scales of a Resize.

    Raises:
        InputError: The file or its external data cannot be read.
    """
    files = files_of(path)
    if len(files) == 1 or sum(file.stat().st_size for file in files) > _MAX_INLINE_BYTES:
        return str(path)
    content: bytes = load_onnx(path).SerializeToString()
    return content


def facts_of_model(model: onnx.ModelProto) -> dict[str, str]:
    """The metadata that swise-export wrote into a model, by key; empty for other models."""
    return facts_of_metadata({entry.key: entry.value for entry in model.metadata_props})


def external_data_of(model: onnx.ModelProto) -> list[ExternalDataInfo]:
    """The places of tensors that are stored outside the model's file."""
    stored = list(model.graph.initializer)
    for node in model.graph.node:
        stored += [a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
    return [ExternalDataInfo(tensor) for tensor in stored if uses_external_data(tensor)]


def sha256_of_onnx(path: Path, model: onnx.ModelProto | None = None) -> str:
    """Hash an ONNX file with its external data.

    Without external data it is the hash of the file's bytes, as `sha256sum` prints it.

    Raises:
        InputError: The file or its external data cannot be read.
    """
    loaded = load_onnx(path, external_data=False) if model is None else model
    own = sha256_of(path)
    names = sorted({info.location for info in external_data_of(loaded)})
    if not names:
        return own
    digest = hashlib.sha256(own.encode())
    for name in names:
        data = path.parent / name
        if not data.is_file():
            raise InputError(
                f"{path} stores weights in {name!r}; no such file is beside it. Copy it there, or "
                "save the model in one file"
            )
        digest.update(f"\n{name}\n{sha256_of(data)}".encode())
    return digest.hexdigest()


def files_of(path: Path) -> list[Path]:
    """The ONNX file and the files with its external data.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}. Expected an ONNX file"
        ) from error
    names = _external_names(path, status.st_mtime_ns, status.st_size)
    return [path, *(path.parent / name for name in names)]


@functools.lru_cache(maxsize=64)
def _external_names(path: Path, mtime_ns: int, size_bytes: int) -> tuple[str, ...]:
    del mtime_ns, size_bytes  # part of the cache key
    model = load_onnx(path, external_data=False)
    return tuple(sorted({info.location for info in external_data_of(model)}))


@contextlib.contextmanager
def translated_damage(path: Path) -> Iterator[None]:
    """Turn every failure on a file's content into one error that names the file.

    Shape arithmetic, protobuf and numpy answer a damaged or hostile graph with errors of any class;
    the file is at fault, not the code that reads it.

    Raises:
        InputError: The block raised, other than BackendMissingError and the like.
    """
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
    except SwiseError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} is damaged, or not a network: {type(error).__name__}: {first_line(error)}. "
            "Expected a whole ONNX file of a super-resolution network"
        ) from error

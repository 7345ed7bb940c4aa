"""JSON documents read into typed values: one reader for every manifest, plan, verdict and result.

A document comes from a file that anybody may have written, so types, ranges, keys, size and
nesting are checked before a value exists. The types are those of the dataclass; narrow them with
the ones below.
"""

import contextlib
import dataclasses
import logging
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import msgspec
from msgspec import Meta

from swise_deploy.errors import InputError, OutputError
from swise_deploy.storage.files import read_regular, write_json
from swise_deploy.storage.ownership import reason_not_own

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

logger = logging.getLogger(__name__)

Document = TypeVar("Document")
Content = TypeVar("Content", bytes, str)

Count = Annotated[int, Meta(ge=0, le=2**53)]
"""A whole number from 0 up, exact in every JSON reader."""

Positive = Annotated[int, Meta(ge=1, le=2**53)]
"""A whole number from 1 up."""

Scale = Annotated[int, Meta(ge=1, le=64)]
"""Output size over input size."""

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
"""A SHA-256 in hexadecimal."""

NonNegative = Annotated[float, Meta(ge=0)]
"""A number from 0 up."""

Share = Annotated[float, Meta(ge=0, le=1.000001)]
"""A share of a whole; rounding may take a sum of shares just above 1."""

Factor = Annotated[float, Meta(gt=0, le=1)]
"""A factor that makes nothing larger."""

MAX_BYTES = 64 << 20
_BIG_NUMBER = re.compile(rb"[0-9]{400}")


def read_document(
    path: Path,
    document_type: type[Document],
    *,
    what: str,
    advice: str,
    schema_version: int | None = None,
    kind: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Document:
    """Read a JSON file into a dataclass.

    Args:
        path: The file.
        document_type: A dataclass; every key has to be one of its fields.
        what: What the file is, for messages, such as "the manifest".
        advice: The way to get a valid one, for messages.
        schema_version: Required value of the key "schema_version"; None for documents without one.
        kind: Required value of the key "kind"; None for documents without one.
        max_bytes: Larger files are refused before they are read.

    Raises:
        InputError: The file is missing, too large, not JSON, of another schema version, or a key,
            type or value in it is wrong. The message names the file and the place in it.
    """
    try:
        content = read_regular(path, max_bytes=max_bytes)
    except OSError as error:
        raise InputError(
            f"cannot read {what} {path}: {error.strerror or error}. {advice}"
        ) from error
    try:
        return document_from_json(content, document_type, schema_version=schema_version, kind=kind)
    except ValueError as error:
        raise InputError(f"cannot read {what} {path}: {error}. {advice}") from error


def read_cached(
    path: Path, document_type: type[Document], *, schema_version: int
) -> Document | None:
    """Read a document from a cache; None where it is absent, invalid or another user's; logged."""
    if not path.is_file():
        return None
    if reason := reason_not_own(path) or reason_not_own(path.parent):
        logger.warning("a cached result is not used, but measured again: %s", reason)
        return None
    try:
        return read_document(
            path,
            document_type,
            what="the cached result",
            advice="It is measured again",
            schema_version=schema_version,
        )
    except InputError as error:
        logger.info("%s", error)
        return None


def read_cached_lines(path: Path, line_type: type[Document]) -> list[Document]:
    """Read a cached file with one JSON document per line; damaged lines are skipped.

    The list is empty where the file is absent, cannot be read or is another user's; logged.
    """
    if not path.is_file():
        return []
    try:
        reason = reason_not_own(path) or reason_not_own(path.parent)
        content = b"" if reason else read_regular(path, max_bytes=MAX_BYTES)
    except OSError as error:
        content, reason = b"", f"{path}: {error.strerror or error}"
    if reason:
        logger.warning("cached results are not used, but measured again: %s", reason)
    found = []
    for line in content.splitlines():
        with contextlib.suppress(ValueError):
            found.append(document_from_json(line, line_type))
    return found


def write_cached(path: Path, document: object, *, is_cheap: bool = False) -> None:
    """Write a document to a cache; a failure is logged.

    Args:
        path: The document.
        document: A dataclass.
        is_cheap: Whether measuring it again takes no time, so that nobody has to be warned.
    """
    try:
        write_document(path, document)
    except OutputError as error:
        level = logging.INFO if is_cheap else logging.WARNING
        logger.log(level, "the result is measured again next time: %s", error)


def document_from_json(
    content: bytes | str,
    document_type: type[Document],
    *,
    schema_version: int | None = None,
    kind: str | None = None,
) -> Document:
    """Parse JSON into a dataclass, or into any other type that msgspec supports.

    Raises:
        ValueError: The content is not a valid document, as for `read_document`.
    """
    encoded = content.encode() if isinstance(content, str) else content
    if _BIG_NUMBER.search(encoded):
        raise ValueError("a number has more than 400 digits")
    return _parsed(msgspec.json.decode, encoded, document_type, schema_version, kind)


def document_from_toml(
    text: str, document_type: type[Document], *, schema_version: int | None = None
) -> Document:
    """Parse TOML into a dataclass, with the checks of `document_from_json`.

    Raises:
        ValueError: The text is not TOML, it has another schema version, or a key, type or value in
            it is wrong.
    """
    return _parsed(tomllib.loads, text, document_type, schema_version, None)


def _parsed(
    parse: Callable[[Content], object],
    content: Content,
    document_type: type[Document],
    schema_version: int | None,
    kind: str | None,
) -> Document:
    try:
        plain = parse(content)
        _check_identity(plain, schema_version, kind)
        value = msgspec.convert(plain, document_type, strict=True)
        _refuse_unknown_keys(plain, msgspec.to_builtins(value, builtin_types=(bytes,)), "$")
    except InputError as error:  # raised by a dataclass's __post_init__
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(_printable(str(error))) from error
    return value


def _check_identity(plain: object, schema_version: int | None, kind: str | None) -> None:
    if schema_version is None and kind is None:
        return
    if not isinstance(plain, dict):
        raise ValueError(f"expected a JSON object, got {type(plain).__name__}")  # noqa: TRY004  # a document's value
    if kind is not None and plain.get("kind") != kind:
        raise ValueError(f"its kind is {_shown(plain.get('kind'))}, expected {kind!r}")
    if schema_version is not None and plain.get("schema_version") != schema_version:
        raise ValueError(
            f"its schema_version is {_shown(plain.get('schema_version'))}; this version reads "
            f"{schema_version}"
        )


def _refuse_unknown_keys(plain: object, parsed: object, place: str) -> None:
    """Refuse keys of a document that are missing from its parsed value."""
    if isinstance(plain, dict) and isinstance(parsed, dict):
        if unknown := [key for key in plain if key not in parsed]:
            raise ValueError(f"unknown key {_shown(unknown[0])} at `{place}`")
        for key, value in plain.items():
            _refuse_unknown_keys(value, parsed[key], f"{place}.{key}")
    elif isinstance(plain, list) and isinstance(parsed, (list, tuple)):
        for one, other in zip(plain, parsed, strict=False):
            _refuse_unknown_keys(one, other, f"{place}[...]")


def _shown(value: object) -> str:
    """A value of a document for a message: short, control characters escaped."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _printable(text: str) -> str:
    """A text that quotes a document, with its control characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def write_document(path: Path, document: object) -> None:
    """Write a dataclass as JSON, whole or not at all; NaN and infinities become null."""
    write_json(path, document_from_value(document))


def document_from_value(document: object) -> dict[str, Any]:
    """Convert a dataclass to JSON types."""
    assert dataclasses.is_dataclass(document) and not isinstance(document, type)  # noqa: PT018
    return cast("dict[str, Any]", _plain(dataclasses.asdict(document)))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

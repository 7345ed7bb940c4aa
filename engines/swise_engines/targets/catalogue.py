"""Devices that engines are built for: data shipped as targets.toml, every number with a source."""

import functools
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from importlib import resources
from types import MappingProxyType
from typing import Literal, cast, get_args

from swise_deploy.command.console import choose
from swise_deploy.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kind = Literal["rtx", "jetson", "datacenter"]
Backend = Literal["tensorrt", "tensorrt_rtx"]
Typing = Literal["weak", "strong", "both"]

SCHEMA_VERSION = 1
FIRST_STRONGLY_TYPED_MAJOR = 10
_SM = re.compile(r"\d+\.\d+")
_RELEASE = re.compile(r"\d+|\d+\.\d+\+?")
_QUANTITIES = ("memory_gib", "bandwidth_gb_s", "fp16_tflops", "int8_tops", "fp32_tflops")


@dataclass(frozen=True, slots=True)
class Target:
    """One device, or every card of one compute capability.

    Attributes:
        name: As given to --target, e.g. "jetson-orin-nano".
        title: As people call it.
        sm: Compute capability, e.g. "8.7".
        kind: Family; a Jetson's engines are built on the device itself.
        backends: What builds and runs its engines, preferred first.
        tensorrt_versions: Releases of TensorRT that serve it: "10" is every 10.x, "10.3" every
            10.3.x, "10.8+" 10.8 and every later 10.x.
        typing: "weak" where only TensorRT 8 serves it (precision by builder flags), "strong" where
            only 10 and later do (precision from the graph), "both" otherwise. `typing_with`
            answers for one release.
        sources: Where the numbers come from.
        jetpacks: Pairs of JetPack release and the TensorRT that it ships, oldest first.
        dla_cores: Deep-learning accelerators beside the GPU.
        memory_gib: As sold; None where it differs from card to card, as all the following.
        bandwidth_gb_s: Peak memory bandwidth, 10^9 bytes a second.
        fp16_tflops: Dense peak, FP16 accumulation, 10^12 operations a second (a MAC is two).
        int8_tops: Dense peak; None where the hardware has no fast INT8 either.
        fp32_tflops: Peak without tensor cores.
        driver_names: What the CUDA driver calls it, e.g. "NVIDIA GeForce RTX 4090".
        unconfirmed: Names of the fields that no primary source confirms.
        notes: Power mode, clock, what to know.
    """

    name: str
    title: str
    sm: str
    kind: Kind
    backends: tuple[Backend, ...]
    tensorrt_versions: tuple[str, ...]
    typing: Typing
    sources: tuple[str, ...]
    jetpacks: tuple[tuple[str, str], ...] = ()
    dla_cores: int = 0
    memory_gib: float | None = None
    bandwidth_gb_s: float | None = None
    fp16_tflops: float | None = None
    int8_tops: float | None = None
    fp32_tflops: float | None = None
    driver_names: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: Names the target, the field, its value and what was expected.
        """
        _require_choice(self.name, "kind", self.kind, get_args(Kind))
        _require_choice(self.name, "typing", self.typing, get_args(Typing))
        for backend in self.backends:
            _require_choice(self.name, "backends", backend, get_args(Backend))
        for field in ("title", "backends", "tensorrt_versions", "sources"):
            if not getattr(self, field):
                raise InputError(f"target {self.name!r}: {field} is empty; give at least one")
        if not _SM.fullmatch(self.sm):
            raise InputError(f"target {self.name!r}: sm {self.sm!r}; expected such as '8.6'")
        for version in self.tensorrt_versions:
            if not _RELEASE.fullmatch(version):
                raise InputError(
                    f"target {self.name!r}: tensorrt_versions {version!r}; "
                    "expected such as '10', '10.3' or '10.8+'"
                )
        if self.typing != (found := _typing_of(self.tensorrt_versions)):
            raise InputError(
                f"target {self.name!r}: typing {self.typing!r}, but TensorRT "
                f"{', '.join(self.tensorrt_versions)} means {found!r}"
            )
        for field in _QUANTITIES:
            value = getattr(self, field)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(
                    f"target {self.name!r}: {field} is {value}; expected a positive number"
                )
        if self.dla_cores < 0:
            raise InputError(
                f"target {self.name!r}: dla_cores is {self.dla_cores}; expected 0 or more"
            )
        for field in self.unconfirmed:
            _require_choice(self.name, "unconfirmed", field, _FIELDS_OF_DATA)

    def served_by(self, tensorrt_version: str) -> bool:
        """Whether a release of TensorRT, such as "10.3.0.30", serves this device."""
        found = tuple(int(part) for part in tensorrt_version.split(".")[:2])
        return any(_covers(release, found) for release in self.tensorrt_versions)


def typing_with(tensorrt_version: str) -> Literal["weak", "strong"]:
    """How a release takes precision: "weak" by builder flags, "strong" from the graph's types."""
    major = int(tensorrt_version.partition(".")[0])
    return "strong" if major >= FIRST_STRONGLY_TYPED_MAJOR else "weak"


@functools.cache
def load_targets() -> Mapping[str, Target]:
    """Every shipped target by name, in the order of the file.

    Raises:
        InputError: The shipped file is damaged; the message names target and field.
    """
    text = (
        resources.files("swise_engines.targets")
        .joinpath("targets.toml")
        .read_text(encoding="utf-8")
    )
    return MappingProxyType(targets_from_toml(text))


def targets_from_toml(text: str) -> dict[str, Target]:
    """Parse a document of the form of targets.toml.

    Raises:
        InputError: Not TOML, another schema version, an unknown field, an impossible value.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the target file is not TOML: {error}") from error
    if document.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"the target file has schema_version {document.get('schema_version')!r}; "
            f"expected {SCHEMA_VERSION}"
        )
    sources = cast("dict[str, str]", document["sources"])
    tables = cast("dict[str, dict[str, object]]", document["targets"])
    return {name: _target_from_table(name, table, sources) for name, table in tables.items()}


def find_target(name: str) -> Target:
    """The shipped target of that name.

    Raises:
        InputError: There is none; the message names the nearest match and all of them.
    """
    targets = load_targets()
    return targets[choose(name, targets, what="target")]


def target_of_gpu(driver_name: str) -> Target | None:
    """The card that the CUDA driver calls by that name; None for one that is not shipped."""
    cards = (card for card in load_targets().values() if driver_name in card.driver_names)
    return next(cards, None)


_REQUIRED_IN_DATA = ("title", "sm", "kind", "backends", "tensorrt_versions", "typing", "sources")
_FIELDS_OF_DATA = tuple(field.name for field in fields(Target) if field.name != "name")


def _target_from_table(
    name: str, table: Mapping[str, object], sources: Mapping[str, str]
) -> Target:
    for key in table:
        _require_choice(name, "unknown field", key, _FIELDS_OF_DATA)
    for key in _REQUIRED_IN_DATA:
        if key not in table:
            raise InputError(f"target {name!r}: the field {key!r} is missing")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    values["jetpacks"] = tuple(cast("dict[str, str]", table.get("jetpacks", {})).items())
    keys = cast("list[str]", table["sources"])
    for key in keys:
        _require_choice(name, "sources", key, sources)
    values["sources"] = tuple(sources[key] for key in keys)
    return Target(name=name, **values)  # type: ignore[arg-type]  # untyped TOML; __post_init__ checks


def _typing_of(releases: tuple[str, ...]) -> Typing:
    kinds = {typing_with(release.rstrip("+")) for release in releases}
    return "both" if len(kinds) > 1 else kinds.pop()


def _covers(release: str, found: tuple[int, ...]) -> bool:
    wanted = tuple(int(part) for part in release.rstrip("+").split("."))
    if release.endswith("+"):
        return found[0] == wanted[0] and found >= wanted
    return found[: len(wanted)] == wanted


def _require_choice(name: str, field: str, value: str, choices: Iterable[str]) -> None:
    known = sorted(choices)
    if value not in known:
        raise InputError(f"target {name!r}: {field} {value!r}; expected one of {', '.join(known)}")

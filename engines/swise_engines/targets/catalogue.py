"""Devices that engines are built for: data shipped as targets.toml, every number with a source."""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from types import MappingProxyType
from typing import Literal

from swise_deploy.command.console import choose
from swise_deploy.errors import InputError
from swise_deploy.precision import Precision
from swise_deploy.storage.documents import document_from_toml

Kind = Literal["rtx", "jetson", "datacenter"]
Backend = Literal["tensorrt", "tensorrt_rtx"]
PrecisionsBySm = Mapping[str, tuple[Precision, ...]]

SCHEMA_VERSION = 2
_SM = re.compile(r"\d+\.\d+")
_RELEASE = re.compile(r"\d+|\d+\.\d+\+?")
_QUANTITIES = ("memory_gib", "bandwidth_gb_s", "fp16_tflops", "int8_tops", "fp32_tflops")


@dataclass(frozen=True, slots=True)
class PowerMode:
    """A power mode of a Jetson, as its nvpmodel configuration states it.

    Attributes:
        name: As nvpmodel calls it, e.g. "25W".
        gpu_mhz: Highest clock of the GPU.
        num_sms: Streaming multiprocessors that are on.
        bandwidth_gb_s: Peak memory bandwidth, 10^9 bytes a second.
    """

    name: str
    gpu_mhz: float
    num_sms: int
    bandwidth_gb_s: float

    @property
    def rate(self) -> float:
        """Multiprocessor clocks a second, 10^6: all peaks of arithmetic are proportional to it."""
        return self.gpu_mhz * self.num_sms


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
        sources: Where the numbers come from.
        precisions: What each backend multiplies in on this device.
        jetpacks: The TensorRT that each JetPack release ships, oldest first.
        power_modes: Power modes with their clocks; the first one has the peaks given here.
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
    sources: tuple[str, ...]
    precisions: Mapping[Backend, tuple[Precision, ...]] = field(default_factory=dict)
    jetpacks: Mapping[str, str] = field(default_factory=dict)
    power_modes: tuple[PowerMode, ...] = ()
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
        """Refuse what no device has.

        Raises:
            InputError: Names the target, the field, its value and the expected ones.
        """
        for empty in ("title", "backends", "tensorrt_versions", "sources"):
            if not getattr(self, empty):
                raise InputError(f"target {self.name!r}: {empty} is empty; give at least one")
        if not _SM.fullmatch(self.sm):
            raise InputError(f"target {self.name!r}: sm {self.sm!r}; expected such as '8.6'")
        for version in self.tensorrt_versions:
            if not _RELEASE.fullmatch(version):
                raise InputError(
                    f"target {self.name!r}: tensorrt_versions {version!r}; "
                    "expected such as '10', '10.3' or '10.8+'"
                )
        for quantity in _QUANTITIES:
            value = getattr(self, quantity)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(
                    f"target {self.name!r}: {quantity} is {value}; expected a positive number"
                )
        if self.dla_cores < 0:
            raise InputError(
                f"target {self.name!r}: dla_cores is {self.dla_cores}; expected 0 or more"
            )
        for mode in self.power_modes:
            if not (mode.gpu_mhz > 0 and mode.num_sms > 0 and mode.bandwidth_gb_s > 0):
                raise InputError(
                    f"target {self.name!r}: power mode {mode.name!r} has {mode}; expected positive "
                    "numbers"
                )
        known = {data.name for data in fields(self)}
        for name in self.unconfirmed:
            _require_choice(self.name, "unconfirmed", name, known)

    def in_mode(self, mode: PowerMode) -> "Target":
        """This device in one of its power modes: the peaks follow the clock."""
        share = mode.rate / self.power_modes[0].rate

        def scaled(peak: float | None) -> float | None:
            return None if peak is None else peak * share

        return replace(
            self,
            bandwidth_gb_s=mode.bandwidth_gb_s,
            fp16_tflops=scaled(self.fp16_tflops),
            int8_tops=scaled(self.int8_tops),
            fp32_tflops=scaled(self.fp32_tflops),
            power_modes=(mode,),
        )

    def served_by(self, tensorrt_version: str) -> bool:
        """True if a release of TensorRT, such as "10.3.0.30", serves this device."""
        found = tuple(int(part) for part in tensorrt_version.split(".")[:2])
        return any(_covers(release, found) for release in self.tensorrt_versions)


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


@dataclass(frozen=True, slots=True)
class _TargetFile:
    """The whole document; a target's sources are keys of `sources`."""

    schema_version: int
    sources: Mapping[str, str]
    precisions: Mapping[Backend, PrecisionsBySm]
    targets: tuple[Target, ...]


def targets_from_toml(text: str) -> dict[str, Target]:
    """Parse a document of the form of targets.toml.

    Raises:
        InputError: The document is not TOML or has another schema version; a key is unknown or
            missing; a value has another type or is impossible; two targets share a name.
    """
    try:
        document = document_from_toml(text, _TargetFile, schema_version=SCHEMA_VERSION)
    except ValueError as error:
        raise InputError(f"the target file: {error}") from error
    found: dict[str, Target] = {}
    for target in document.targets:
        if target.name in found:
            raise InputError(f"target {target.name!r} is there twice; expected once")
        found[target.name] = _resolved(target, document)
    return found


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


def precisions_of_sm(backend: Backend, sm: str) -> tuple[Precision, ...]:
    """Precisions of a backend on a compute capability; none where they are unknown."""
    by_backend = (t.precisions for t in load_targets().values() if t.sm == sm)
    return next((found[backend] for found in by_backend if backend in found), ())


def _resolved(target: Target, document: _TargetFile) -> Target:
    """A target with the texts of its sources, and the precisions of its compute capability."""
    for key in target.sources:
        _require_choice(target.name, "sources", key, document.sources)
    precisions = dict(target.precisions)
    for backend in target.backends:
        by_sm = document.precisions.get(backend, {})
        if backend not in precisions:
            _require_choice(target.name, f"sm without precisions.{backend}:", target.sm, by_sm)
            precisions[backend] = by_sm[target.sm]
    sources = tuple(document.sources[key] for key in target.sources)
    return replace(target, sources=sources, precisions=MappingProxyType(precisions))


def _covers(release: str, found: tuple[int, ...]) -> bool:
    wanted = tuple(int(part) for part in release.rstrip("+").split("."))
    if release.endswith("+"):
        return found[0] == wanted[0] and found >= wanted
    return found[: len(wanted)] == wanted


def _require_choice(name: str, what: str, value: str, choices: Iterable[str]) -> None:
    known = sorted(choices)
    if value not in known:
        raise InputError(f"target {name!r}: {what} {value!r}; expected one of {', '.join(known)}")

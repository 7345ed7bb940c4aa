"""Support for a target on the machine that was examined: building its engines, and running them."""

from dataclasses import dataclass

from swise_engines.doctor.abilities import (
    Ability,
    build_with_rtx,
    build_with_tensorrt,
    reason_rtx_unserved,
    rtx_capabilities,
    run_engines,
)
from swise_engines.doctor.examination import Examination
from swise_engines.targets.catalogue import Target, find_target

CURRENT = "current"
"""The name that stands for the GPU of this machine."""


@dataclass(frozen=True, slots=True)
class TargetSupport:
    """The support for a target on this machine.

    Attributes:
        target: Its name, as given.
        build: Building them; a target is served where this works.
        run: Running them.
    """

    target: str
    build: Ability
    run: Ability


def check_target(seen: Examination, name: str) -> TargetSupport:
    """Check whether a target is served here.

    Args:
        seen: The machine.
        name: A shipped target, or "current" for this machine's own GPU.

    Raises:
        InputError: The name is unknown; the message names the nearest.
    """
    if name != CURRENT:
        return _check_shipped(seen, find_target(name))
    if seen.gpu is None:
        why = f"this machine has no GPU: {seen.no_gpu}"
        return TargetSupport(name, _cannot("build", why), _cannot("run", why))
    if seen.gpu.target:
        return _check_shipped(seen, find_target(seen.gpu.target))
    run, with_tensorrt = run_engines(seen), build_with_tensorrt(seen)
    if reason_rtx_unserved(seen) and not with_tensorrt.works:
        return TargetSupport(name, _cannot("build", run.why, run.fix), run)
    ways = [ability for ability in (with_tensorrt, build_with_rtx(seen)) if ability.works]
    return TargetSupport(name, (ways or [with_tensorrt])[0], run)


def _check_shipped(seen: Examination, target: Target) -> TargetSupport:
    ways = [_build(seen, target, backend) for backend in target.backends]
    build = next((ability for ability in ways if ability.works), None) or _cannot(
        "build",
        "; ".join(ability.why for ability in ways),
        next((ability.fix for ability in ways if ability.fix), ()),
    )
    return TargetSupport(target.name, build, _run(seen, target))


def _build(seen: Examination, target: Target, backend: str) -> Ability:
    if backend == "tensorrt_rtx":
        ability = build_with_rtx(seen)
        known = rtx_capabilities(seen)
        if ability.works and known and target.sm not in known:
            version = seen.packages["tensorrt_rtx"].version
            why = f"TensorRT for RTX {version} builds for SM {', '.join(known)}, not {target.sm}"
            update = f"{seen.python.pip} install --upgrade tensorrt-rtx-cu13"
            return _cannot("build", why, (update,))
        return Ability("build", works=ability.works, why=ability.why, fix=ability.fix)
    if seen.gpu is None or seen.gpu.sm != target.sm:
        here = f"this machine's GPU is SM {seen.gpu.sm}" if seen.gpu else "this machine has no GPU"
        why = f"TensorRT builds on the device: {target.title} is SM {target.sm}, {here}"
        there = f"swise-build FILE.onnx --target {target.name}   # on the device"
        return _cannot("build", why, (there,))
    ability = build_with_tensorrt(seen)
    version = seen.packages["tensorrt"].version
    if ability.works and version and not target.served_by(version):
        served = ", ".join(target.tensorrt_versions)
        return _cannot("build", f"TensorRT {version} does not serve {target.title}; {served} do")
    return Ability("build", works=ability.works, why=ability.why, fix=ability.fix)


def _run(seen: Examination, target: Target) -> Ability:
    if seen.gpu and seen.gpu.sm != target.sm:
        why = f"{target.title} is SM {target.sm}, {seen.gpu.name} is SM {seen.gpu.sm}"
        return _cannot("run", why)
    ability = run_engines(seen, target.backends)
    return Ability("run", works=ability.works, why=ability.why, fix=ability.fix)


def _cannot(name: str, why: str, fix: tuple[str, ...] = ()) -> Ability:
    return Ability(name, works=False, why=why, fix=fix)

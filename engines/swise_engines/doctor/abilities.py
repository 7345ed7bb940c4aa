"""The abilities of a machine: what works, why something does not, and the commands that fix it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from swise_engines.doctor import fixes, jetson
from swise_engines.doctor.examination import Examination
from swise_engines.tensorrt.rtx_gpus import reason_unserved
from swise_export.runtimes.table import optional_runtimes

# A build of SwiseNet x4 for a 1280x720 output needs about 1 GiB beside TensorRT's own libraries.
MEMORY_TO_BUILD_MIB = 2048


@dataclass(frozen=True, slots=True)
class Ability:
    """Something that this machine can or cannot do.

    Attributes:
        name: What it is.
        works: Whether it can be done.
        why: With what, or what is missing.
        fix: Commands that make it work, in order; empty where it works or no command can.
        extra: The extra of this project that is all it lacks; "" for any other state.
    """

    name: str
    works: bool
    why: str
    fix: tuple[str, ...] = ()
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Advice:
    """Something that works but costs speed, memory or repeatability, and commands against it."""

    what: str
    fix: tuple[str, ...]


# Optional packages that give one ability each: the ability, the package, the extra.
_OPTIONAL = (
    *(
        (f"run ONNX files with {runtime.title}", package, runtime.extra)
        for package, runtime in optional_runtimes().items()
    ),
    ("upscale videos", "av", "video"),
    ("export and train checkpoints", "torch", "export"),
    ("export checkpoints of other projects", "spandrel", "spandrel"),
    ("upscale a folder on several machines", "ray", "ray"),
)


def list_abilities(seen: Examination) -> list[Ability]:
    """Every ability, from ONNX files on a CPU, which every machine should have, to the rarest."""
    return [
        _onnx_on_cpu(seen),
        build_with_rtx(seen),
        build_with_tensorrt(seen),
        run_engines(seen),
        *(_from_package(seen, *row) for row in _OPTIONAL),
    ]


def list_advice(seen: Examination) -> list[Advice]:
    """Settings to change before this machine's numbers are used or a long build is started."""
    advice = []
    if len(seen.onnx_runtimes) > 1:
        advice.append(
            Advice(
                f"{' and '.join(seen.onnx_runtimes)} overwrite each other's files: keep one",
                fixes.keep_one_onnx_runtime(seen),
            )
        )
    if seen.gpu and seen.gpu.is_jetson:
        mode = seen.fact("jetson", "power_mode").value
        fastest = jetson.fastest_mode(list(seen.modes))
        if mode and fastest and mode != fastest.name:
            advice.append(
                Advice(
                    f"power mode {mode}, not {fastest.name}: it limits the GPU clock",
                    (f"sudo nvpmodel -m {fastest.number}",),
                )
            )
        if seen.fact("jetson", "clocks_locked").value is False:
            advice.append(
                Advice(
                    "clocks change with the load: latencies will not repeat",
                    ("sudo jetson_clocks",),
                )
            )
    if seen.free_memory_mib is not None and seen.free_memory_mib < MEMORY_TO_BUILD_MIB:
        advice.append(
            Advice(
                f"{seen.free_memory_mib:.0f} MiB of memory free, a build needs "
                f"{MEMORY_TO_BUILD_MIB}: it may be killed",
                fixes.free_memory(seen),
            )
        )
    return advice


def _onnx_on_cpu(seen: Examination) -> Ability:
    runtime = seen.packages["onnxruntime"]
    name = "upscale and benchmark ONNX files"
    if runtime.works:
        providers = seen.fact("python", "onnxruntime_providers").value
        return Ability(name, works=True, why=f"ONNX Runtime {runtime.version}: {providers}")
    why = f"onnxruntime: {runtime.reason}"
    return Ability(name, works=False, why=why, fix=fixes.install_onnx_runtime(seen))


def _from_package(seen: Examination, name: str, package: str, extra: str) -> Ability:
    fact = seen.fact("python", package)
    if fact.value is not None:
        return Ability(name, works=True, why=f"{package} {fact.value}")
    if not fact.is_absent:
        fix = (fixes.probe_by_hand(package),)
        return Ability(name, works=False, why=f"{package}: {fact.reason}", fix=fix)
    why, fix = f"{package}: not installed", (fixes.install_extras(seen, extra),)
    return Ability(name, works=False, why=why, fix=fix, extra=extra)


def build_with_rtx(seen: Examination) -> Ability:
    """Building engines with TensorRT for RTX."""
    name = "build engines for RTX cards"
    missing = [key for key in ("tensorrt_rtx", "polygraphy") if not seen.packages[key].works]
    if not missing:
        version = seen.packages["tensorrt_rtx"].version
        return Ability(name, works=True, why=f"TensorRT for RTX {version}; needs no GPU")
    why = "; ".join(f"{key}: {seen.packages[key].reason}" for key in missing)
    fix = fixes.install_or_probe(seen, missing, fixes.install_extras(seen, "rtx"))
    return Ability(name, works=False, why=why, fix=fix)


def build_with_tensorrt(seen: Examination) -> Ability:
    """Building engines with TensorRT, which needs the GPU that they are for."""
    name = "build engines with TensorRT"
    trt = seen.packages["tensorrt"]
    if not trt.works:
        why = f"tensorrt: {trt.reason}"
        return Ability(name, works=False, why=why, fix=fixes.install_tensorrt(seen))
    if seen.gpu is None:
        return Ability(name, works=False, why=f"it builds on the GPU it builds for; {seen.no_gpu}")
    if trt.start_error:
        why = f"TensorRT {trt.version} does not start: {trt.start_error}"
        return Ability(name, works=False, why=why, fix=(fixes.probe_by_hand("tensorrt"),))
    if not seen.packages["polygraphy"].works:
        why = f"polygraphy: {seen.packages['polygraphy'].reason}"
        install = fixes.install_extras(seen, "tensorrt")
        fix = fixes.install_or_probe(seen, ["polygraphy"], install)
        return Ability(name, works=False, why=why, fix=fix)
    return Ability(name, works=True, why=f"TensorRT {trt.version} for SM {seen.gpu.sm}")


def run_engines(
    seen: Examination, backends: Collection[str] = ("tensorrt", "tensorrt_rtx")
) -> Ability:
    """Running engines of the given backends on the GPU of this machine."""
    name = "run engines"
    if seen.gpu is None:
        return Ability(name, works=False, why=f"no GPU: {seen.no_gpu}")
    reasons = {key: _why_not_run(seen, key) for key in ("tensorrt", "tensorrt_rtx")}
    usable = [key for key in reasons if key in backends and not reasons[key]]
    if not usable:
        # RTX is named where it is installed and does not serve the GPU.
        unserved = reason_rtx_unserved(seen) if "tensorrt_rtx" in backends else ""
        whys = [unserved, f"tensorrt: {reasons['tensorrt']}"]
        why = "; ".join(why for why in whys if why)
        return Ability(name, works=False, why=why, fix=fixes.install_tensorrt(seen))
    # In the order in which the runners try them.
    bindings = [key for key in ("cuda_bindings", "pycuda") if seen.packages[key].works]
    if not bindings:
        absent = (seen.packages[key] for key in ("cuda_bindings", "pycuda"))
        why = "; ".join(f"{package.name}: {package.reason}" for package in absent)
        broken = [key for key in ("cuda_bindings",) if not seen.packages[key].is_absent]
        fix = tuple(map(fixes.probe_by_hand, broken)) or fixes.install_cuda_bindings(seen)
        return Ability(name, works=False, why=why, fix=fix)
    return Ability(name, works=True, why=f"{' and '.join(usable)} through {bindings[0]}")


def _why_not_run(seen: Examination, backend: str) -> str:
    package = seen.packages[backend]
    if not package.works:
        return package.reason
    if package.start_error:
        return f"it does not start: {package.start_error}"
    return reason_rtx_unserved(seen) if backend == "tensorrt_rtx" else ""


def reason_rtx_unserved(seen: Examination) -> str:
    """Reason why an installed TensorRT for RTX runs nothing on this GPU; "" where it does."""
    rtx = seen.packages["tensorrt_rtx"]
    if seen.gpu is None or rtx.version is None:
        return ""
    return reason_unserved(rtx.version, rtx_capabilities(seen), seen.gpu.sm)


def rtx_capabilities(seen: Examination) -> list[str]:
    """Compute capabilities that the installed TensorRT for RTX names; none where unknown."""
    details = seen.packages["tensorrt_rtx"].details
    return cast("list[str]", details.get("capabilities", []))

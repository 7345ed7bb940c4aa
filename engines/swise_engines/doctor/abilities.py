"""What a machine can do, what it cannot, and the exact command that mends it."""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from swise_deploy.command.dependencies import install_command
from swise_engines.doctor import jetson
from swise_engines.doctor.examination import Examination
from swise_engines.targets.catalogue import Target, find_target
from swise_engines.tensorrt.api import wheel_for
from swise_engines.tensorrt.rtx_gpus import reason_unserved

CURRENT = "current"
"""The name that stands for the GPU of this machine."""

# A build of SwiseNet x4 for a 1280x720 output needs about 1 GiB beside TensorRT's own libraries.
MEMORY_TO_BUILD_MIB = 2048


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing that can or cannot be done here.

    Attributes:
        name: What it is.
        works: Whether it can be done.
        why: With what, or what is missing.
        mend: Commands that make it work, in order; empty where it works or no command can.
    """

    name: str
    works: bool
    why: str
    mend: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """Something that works but costs speed, memory or repeatability, and the command against it."""

    what: str
    mend: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TargetVerdict:
    """Whether engines for a target can be built and run here.

    Attributes:
        target: Name as asked for.
        build: Building them; serving a target means this.
        run: Running them.
    """

    target: str
    build: Ability
    run: Ability


def list_abilities(seen: Examination) -> list[Ability]:
    """What can be done, from what every machine should do to what few can."""
    return [
        _onnx_on_cpu(seen),
        _build_rtx(seen),
        _build_tensorrt(seen),
        _run_engines(seen),
        _from_checkpoints(seen),
    ]


def judge_target(seen: Examination, name: str) -> TargetVerdict:
    """Say whether a target can be served here.

    Args:
        seen: The machine.
        name: A shipped target, or "current" for this machine's own GPU.

    Raises:
        InputError: The name is unknown; the message names the nearest.
    """
    if name == CURRENT:
        return _judge_current(seen)
    return _judge(seen, find_target(name))


def give_advice(seen: Examination) -> list[Advice]:
    """What to set before this machine's numbers are believed or a long build is started."""
    advice = []
    if seen.gpu and seen.gpu.is_jetson:
        mode = seen.fact("jetson", "power_mode").value
        fastest = jetson.fastest_mode(list(seen.modes))
        if mode and fastest and mode != fastest.name:
            advice.append(
                Advice(
                    f"power mode {mode}, not {fastest.name}: the GPU is held below its full clock",
                    (f"sudo nvpmodel -m {fastest.number}",),
                )
            )
        if seen.fact("jetson", "clocks_locked").value is False:
            advice.append(
                Advice(
                    "clocks move with the load: latencies will not repeat", ("sudo jetson_clocks",)
                )
            )
    if seen.free_memory_mib is not None and seen.free_memory_mib < MEMORY_TO_BUILD_MIB:
        advice.append(
            Advice(
                f"{seen.free_memory_mib:.0f} MiB of memory free, a build wants "
                f"{MEMORY_TO_BUILD_MIB}: it may be killed",
                _free_memory(seen),
            )
        )
    return advice


def _onnx_on_cpu(seen: Examination) -> Ability:
    runtime = seen.backends["onnxruntime"]
    name = "upscale and benchmark ONNX files"
    if runtime.works:
        providers = seen.fact("python", "onnxruntime_providers").value
        return Ability(name, works=True, why=f"ONNX Runtime {runtime.version}: {providers}")
    mend = _mend_packages(seen, ["onnxruntime"], f"{_pip(seen)} install onnxruntime")
    return Ability(name, works=False, why=f"onnxruntime: {runtime.error}", mend=mend)


def _build_rtx(seen: Examination) -> Ability:
    name = "build engines for RTX cards"
    missing = [key for key in ("tensorrt_rtx", "polygraphy") if not seen.backends[key].works]
    if not missing:
        version = seen.backends["tensorrt_rtx"].version
        return Ability(name, works=True, why=f"TensorRT for RTX {version}; needs no GPU")
    why = "; ".join(f"{key}: {seen.backends[key].error}" for key in missing)
    mend = _mend_packages(seen, missing, _install_extra(seen, "rtx"))
    return Ability(name, works=False, why=why, mend=mend)


def _build_tensorrt(seen: Examination) -> Ability:
    name = "build engines with TensorRT"
    trt = seen.backends["tensorrt"]
    if not trt.works:
        return Ability(name, works=False, why=f"tensorrt: {trt.error}", mend=_mend_tensorrt(seen))
    if seen.gpu is None:
        return Ability(name, works=False, why=f"it builds on the GPU it builds for; {seen.no_gpu}")
    if not seen.backends["polygraphy"].works:
        why = f"polygraphy: {seen.backends['polygraphy'].error}"
        mend = _mend_packages(seen, ["polygraphy"], _install_extra(seen, "tensorrt"))
        return Ability(name, works=False, why=why, mend=mend)
    return Ability(name, works=True, why=f"TensorRT {trt.version} for SM {seen.gpu.sm}")


def _run_engines(
    seen: Examination, backends: Collection[str] = ("tensorrt", "tensorrt_rtx")
) -> Ability:
    name = "run engines"
    if seen.gpu is None:
        return Ability(name, works=False, why=f"no GPU: {seen.no_gpu}")
    unserved = _why_rtx_does_not_run(seen) if "tensorrt_rtx" in backends else ""
    usable = [key for key in ("tensorrt", "tensorrt_rtx") if key in backends]
    runtimes = [key for key in usable if seen.backends[key].works]
    if unserved and "tensorrt_rtx" in runtimes:
        runtimes.remove("tensorrt_rtx")
    if not runtimes:
        whys = [unserved, f"tensorrt: {seen.backends['tensorrt'].error}"]
        why = "; ".join(why for why in whys if why)
        return Ability(name, works=False, why=why, mend=_mend_tensorrt(seen))
    # In the order in which they are tried.
    drivers = [key for key in ("cuda_bindings", "pycuda") if seen.backends[key].works]
    if not drivers:
        why = f"neither pycuda ({seen.backends['pycuda'].error}) nor cuda-bindings imports"
        return Ability(name, works=False, why=why, mend=_mend_pycuda(seen))
    return Ability(name, works=True, why=f"{' and '.join(runtimes)} through {drivers[0]}")


def _why_rtx_does_not_run(seen: Examination) -> str:
    """Why TensorRT for RTX, where it is installed, runs nothing on this GPU; "" where it does."""
    rtx = seen.backends["tensorrt_rtx"]
    if seen.gpu is None or rtx.version is None:
        return ""
    return reason_unserved(rtx.version, _rtx_capabilities(seen), seen.gpu.sm)


def _rtx_capabilities(seen: Examination) -> list[str]:
    return cast("list[str]", seen.backends["tensorrt_rtx"].details.get("capabilities", []))


def _from_checkpoints(seen: Examination) -> Ability:
    name = "export and train checkpoints"
    torch = seen.fact("python", "torch")
    if torch.value is not None:
        return Ability(name, works=True, why=f"torch {torch.value}")
    mend = (_install_extra(seen, "export"),)
    return Ability(name, works=False, why=str(torch.reason), mend=mend)


def _judge(seen: Examination, target: Target) -> TargetVerdict:
    builds = [_can_build(seen, target, backend) for backend in target.backends]
    build = next((ability for ability in builds if ability.works), None) or Ability(
        "build",
        works=False,
        why="; ".join(ability.why for ability in builds),
        mend=next((ability.mend for ability in builds if ability.mend), ()),
    )
    return TargetVerdict(target.name, build, _can_run(seen, target))


def _judge_current(seen: Examination) -> TargetVerdict:
    if seen.gpu is None:
        missing = Ability("build", works=False, why=f"this machine has no GPU: {seen.no_gpu}")
        return TargetVerdict(CURRENT, missing, Ability("run", works=False, why=missing.why))
    if seen.gpu.target:
        return _judge(seen, find_target(seen.gpu.target))
    run = _run_engines(seen)
    unserved = _why_rtx_does_not_run(seen)
    if unserved and not _build_tensorrt(seen).works:
        return TargetVerdict(
            CURRENT, Ability("build", works=False, why=run.why, mend=run.mend), run
        )
    ways = [ability for ability in (_build_tensorrt(seen), _build_rtx(seen)) if ability.works]
    return TargetVerdict(CURRENT, (ways or [_build_tensorrt(seen)])[0], run)


def _can_build(seen: Examination, target: Target, backend: str) -> Ability:
    if backend == "tensorrt_rtx":
        ability = _build_rtx(seen)
        known = _rtx_capabilities(seen)
        if ability.works and known and target.sm not in known:
            version = seen.backends["tensorrt_rtx"].version
            why = f"TensorRT for RTX {version} builds for SM {', '.join(known)}, not {target.sm}"
            return Ability("build", works=False, why=why, mend=(_update_rtx(seen),))
        return Ability("build", works=ability.works, why=ability.why, mend=ability.mend)
    if seen.gpu is None or seen.gpu.sm != target.sm:
        here = f"a GPU of {seen.gpu.sm}" if seen.gpu else "no GPU"
        return Ability(
            "build",
            works=False,
            why=f"TensorRT builds on the device itself: {target.title} is SM {target.sm}, "
            f"here is {here}",
            mend=(f"swise-build FILE.onnx --target {target.name}   # on the {target.title}",),
        )
    ability = _build_tensorrt(seen)
    version = seen.backends["tensorrt"].version
    if ability.works and version and not target.served_by(version):
        served = ", ".join(target.tensorrt_versions)
        why = f"TensorRT {version} does not serve {target.title}; {served} do"
        return Ability("build", works=False, why=why)
    return Ability("build", works=ability.works, why=ability.why, mend=ability.mend)


def _can_run(seen: Examination, target: Target) -> Ability:
    ability = _run_engines(seen, target.backends)
    if seen.gpu and seen.gpu.sm != target.sm:
        why = f"{target.title} is SM {target.sm}, here is {seen.gpu.name}, SM {seen.gpu.sm}"
        return Ability("run", works=False, why=why)
    return Ability("run", works=ability.works, why=ability.why, mend=ability.mend)


def _mend_packages(seen: Examination, names: list[str], install: str) -> tuple[str, ...]:
    """Install what is absent; try by hand what is there and does not load, to see all it says."""
    broken = [name for name in names if not seen.backends[name].is_absent]
    if broken:
        return tuple(f"{sys.executable} -m swise_engines.doctor.probe {name}" for name in broken)
    return (install,)


def _mend_tensorrt(seen: Examination) -> tuple[str, ...]:
    if not seen.backends["tensorrt"].is_absent:
        return (f"{sys.executable} -m swise_engines.doctor.probe tensorrt",)
    if seen.hidden_tensorrt:
        return _show_system_packages(seen)
    if seen.jetpack:
        return ("sudo apt-get update", "sudo apt-get install nvidia-jetpack")
    if seen.gpu:
        return (
            f"{_pip(seen)} install '{wheel_for(str(seen.fact('gpu', 'cuda').value or ''))}'",
            _install_extra(seen, "tensorrt"),
        )
    return ()


def _show_system_packages(seen: Examination) -> tuple[str, ...]:
    """JetPack's TensorRT is a system package: a virtual environment hides it unless told not to."""
    if seen.python.version in seen.hidden_tensorrt and seen.python.is_virtual:
        key = "include-system-site-packages"
        return (f"sed -i 's/^{key} *=.*/{key} = true/' {seen.python.prefix}/pyvenv.cfg",)
    major, minor = max(seen.hidden_tensorrt)
    return (
        f"/usr/bin/python{major}.{minor} -m venv --system-site-packages ~/swise",
        install_command("tensorrt", pip="~/swise/bin/pip"),
    )


def _mend_pycuda(seen: Examination) -> tuple[str, ...]:
    if not seen.backends["pycuda"].is_absent:
        return (f"{sys.executable} -m swise_engines.doctor.probe pycuda",)
    if seen.jetpack:
        return (
            "sudo apt-get install build-essential python3-dev",
            f"PATH=/usr/local/cuda/bin:$PATH {_pip(seen)} install pycuda",
        )
    return (f"{_pip(seen)} install cuda-bindings",)


def _free_memory(seen: Examination) -> tuple[str, ...]:
    if seen.jetpack:
        return (
            "sudo systemctl isolate multi-user.target   # until the next boot, without desktop",
        )
    return ()


def _update_rtx(seen: Examination) -> str:
    return f"{_pip(seen)} install --upgrade tensorrt-rtx-cu13"


def _install_extra(seen: Examination, extra: str) -> str:
    return install_command(extra, pip=_pip(seen))


def _pip(seen: Examination) -> str:
    return f"{sys.executable} -m pip" if seen.python.is_virtual else "pip"

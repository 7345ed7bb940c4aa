"""Commands that make an ability work on the machine that was examined."""

import sys
from collections.abc import Iterable

from swise_deploy.command.dependencies import install_command
from swise_engines.doctor.examination import Examination
from swise_engines.tensorrt.api import wheel_for

Commands = tuple[str, ...]


def install_extras(seen: Examination, *extras: str) -> str:
    """Install extras of this project."""
    return install_command(*extras, pip=seen.python.pip)


def install_or_probe(seen: Examination, names: Iterable[str], install: str) -> Commands:
    """Install what is absent; probe by hand what is installed and broken, for its whole output."""
    broken = [name for name in names if not seen.packages[name].is_absent]
    return tuple(probe_by_hand(name) for name in broken) or (install,)


def probe_by_hand(name: str) -> str:
    """Run the probe of one package in the open."""
    return f"{sys.executable} -m swise_engines.doctor.probe {name}"


def install_tensorrt(seen: Examination) -> Commands:
    """Install TensorRT, or make an installed one visible; nothing where there is no GPU."""
    if not seen.packages["tensorrt"].is_absent:
        return (probe_by_hand("tensorrt"),)
    if seen.hidden_tensorrt:
        return _show_system_packages(seen)
    if seen.jetpack:
        return ("sudo apt-get update", "sudo apt-get install nvidia-jetpack")
    if seen.gpu:
        return (
            f"{seen.python.pip} install '{wheel_for(seen.driver_cuda)}'",
            install_extras(seen, "tensorrt"),
        )
    return ()


def _show_system_packages(seen: Examination) -> Commands:
    """JetPack's TensorRT is a system package, which a virtual environment hides by default."""
    if seen.python.version in seen.hidden_tensorrt and seen.python.is_virtual:
        key = "include-system-site-packages"
        return (f"sed -i 's/^{key} *=.*/{key} = true/' {seen.python.prefix}/pyvenv.cfg",)
    major, minor = max(seen.hidden_tensorrt)
    return (
        f"/usr/bin/python{major}.{minor} -m venv --system-site-packages ~/swise",
        install_command("tensorrt", pip="~/swise/bin/pip"),
    )


def install_cuda_bindings(seen: Examination) -> Commands:
    """Install the cuda-bindings that the driver supports; one for a later CUDA is refused."""
    major = seen.driver_cuda.partition(".")[0]
    newest = f"'cuda-bindings<{int(major) + 1}'" if major.isdecimal() else "cuda-bindings"
    return (f"{seen.python.pip} install {newest}",)


def free_memory(seen: Examination) -> Commands:
    """Stop the desktop of a Jetson, which takes memory that a build needs."""
    if seen.jetpack:
        return (
            "sudo systemctl isolate multi-user.target   # until the next boot, without desktop",
        )
    return ()


def keep_one_onnx_runtime(seen: Examination) -> Commands:
    """Remove all distributions of ONNX Runtime and install the accelerated one again."""
    kept = next(name for name in seen.onnx_runtimes if name != "onnxruntime")
    return (
        f"{seen.python.pip} uninstall -y {' '.join(seen.onnx_runtimes)}",
        f"{seen.python.pip} install --no-deps {kept}{_jetson_wheels(seen, 'from')}",
    )


def install_onnx_runtime(seen: Examination) -> Commands:
    """Install ONNX Runtime; on JetPack 6 names the index that has one for its GPU."""
    install = install_extras(seen, "cpu") + _jetson_wheels(seen, "or onnxruntime-gpu of")
    return install_or_probe(seen, ["onnxruntime"], install)


def _jetson_wheels(seen: Examination, joint: str) -> str:
    is_jetpack_6 = (seen.jetpack or "").partition(".")[0] == "6"
    return f"   # {joint} the Jetson AI Lab's index, jp6/cu126" if is_jetpack_6 else ""

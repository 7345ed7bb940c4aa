"""ONNX files in ONNX Runtime's CUDA provider, on an NVIDIA GPU."""

from pathlib import Path
from typing import cast

from swise_deploy.command.cuda_driver import probe_cuda
from swise_export.runtimes.onnxruntime import PROVIDERS, OnnxRunner, available_providers
from swise_export.runtimes.onnxruntime import describe as describe_cpu


def open_runner(path: Path, *, threads: int | None = None) -> OnnxRunner:
    """Open a file on the first GPU."""
    return OnnxRunner(path, provider="cuda", threads=threads)


def describe() -> str:
    """Runtime, version and device."""
    devices = cast("list[dict[str, object]]", probe_cuda()["devices"])
    return f"{describe_cpu().replace(PROVIDERS['cpu'], PROVIDERS['cuda'])} on {devices[0]['name']}"


def unusable_reason() -> str:
    """The reason why it cannot run here; "" where it can."""
    if PROVIDERS["cuda"] not in available_providers():
        return "this ONNX Runtime has no CUDA provider; onnxruntime-gpu has one"
    try:
        devices = probe_cuda()["devices"]
    except OSError as error:
        return str(error)
    return "" if devices else "CUDA shows no GPU to this process"

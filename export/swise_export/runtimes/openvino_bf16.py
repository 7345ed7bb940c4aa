"""ONNX files in OpenVINO on a CPU with bf16 arithmetic, whatever precision the file states."""

from pathlib import Path

from swise_export.runtimes.openvino import OpenVinoRunner, openvino_core
from swise_export.runtimes.openvino import describe as describe_fp32


def open_runner(path: Path, *, threads: int | None = None) -> OpenVinoRunner:
    """Open a file on the CPU."""
    return OpenVinoRunner(path, threads=threads, computes_bf16=True)


def describe() -> str:
    """Runtime, version, device and precision; OpenVINO is not imported for it."""
    return f"{describe_fp32()}, bf16"


def unusable_reason() -> str:
    """The reason why it cannot run here; "" where it can."""
    found = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in found:
        return f"this CPU has no bf16 arithmetic, only {', '.join(found)}"
    return ""

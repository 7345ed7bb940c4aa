"""GPUs that TensorRT for RTX serves: it builds on any machine, and loads engines on these."""

from collections.abc import Sequence
from types import ModuleType

from swise_engines.tensorrt.api import release_of


def rtx_capabilities(trt: ModuleType) -> tuple[str, ...]:
    """Compute capabilities that a TensorRT for RTX names, such as "8.6"."""
    names = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    return tuple(f"{name[2:-1]}.{name[-1]}" for name in names)


def reason_unserved(version: str, capabilities: Sequence[str], sm: str) -> str:
    """Reason why a TensorRT for RTX runs no engine on a GPU; "" where it does.

    It runs engines on the GPUs that it names, and portable engines on GPUs newer than all of
    them. (Its log about a portable engine: "Supported compute capabilities: 8.0 8.6 8.9 12.0
    12.1 >12.0", 1.7.1.116 on an H100; bench/results/gpu/nvidia-h100-80gb-hbm3/engines.txt.)

    Args:
        version: Its version.
        capabilities: Those that it names; none where they are unknown, which is no reason.
        sm: The GPU's compute capability.
    """
    if not capabilities or sm in capabilities or is_newer(capabilities, sm):
        return ""
    return (
        f"TensorRT for RTX {version} runs no engine on SM {sm}: it serves "
        f"SM {', '.join(capabilities)} and later"
    )


def is_newer(capabilities: Sequence[str], sm: str) -> bool:
    """True if a GPU is newer than all GPUs that a TensorRT for RTX names."""
    return release_of(sm) > max(map(release_of, capabilities))

"""The number format of training: as configured, or measured; always with its reason."""

import time
from typing import Literal

import torch
from torch import nn

from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.precision import TrainingPrecision
from swise_deploy.training.config import TrainPrecision

FABRIC_NAMES: dict[TrainingPrecision, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}

# Autocast has to win by this much over fp32, or the plain arithmetic is kept.
WORTHWHILE = 1.1


def resolve_precision(
    wanted: TrainPrecision, accelerator: str, *, because: str = "as configured"
) -> tuple[TrainingPrecision, str]:
    """Turn "auto" into what is faster here.

    Args:
        wanted: A format, or "auto".
        accelerator: As Lightning Fabric names them.
        because: The reason for `wanted`, where that is a format.

    Returns:
        The format, and the reason as a clause for the user.

    Raises:
        InputError: fp16 on a CPU, where autocast has no loss scaling.
        BackendMissingError: A GPU is required, and torch sees none.
    """
    has_gpu = torch.cuda.is_available()
    if accelerator in ("cuda", "gpu") and not has_gpu:
        raise BackendMissingError(
            f"accelerator is {accelerator}, but torch {torch.__version__} sees no GPU: it is a "
            "build without CUDA, or no NVIDIA driver that serves it is here. Install a CUDA build "
            "of torch or a newer driver, or use --accelerator cpu"
        )
    on_gpu = has_gpu and accelerator in ("cuda", "gpu", "auto")
    if wanted == "fp16" and not on_gpu:
        raise InputError("precision is fp16 on a CPU; expected fp32, bf16 or auto there")
    if wanted == "bf16" and not on_gpu and accelerator != "mps":
        return wanted, because + _slower_than_fp32()
    if wanted != "auto":
        return wanted, because
    if on_gpu:
        major, minor = torch.cuda.get_device_capability()
        # bf16 tensor cores came with compute capability 8.0; before it bf16 is emulated.
        best: TrainingPrecision = "bf16" if major >= 8 else "fp16"
        return best, f"a GPU of compute capability {major}.{minor}"
    if accelerator == "mps":
        return "fp32", "not measured on mps"
    speedup = bf16_speedup()
    chosen: TrainingPrecision = "bf16" if speedup >= WORTHWHILE else "fp32"
    return chosen, _measured(speedup)


def _slower_than_fp32() -> str:
    """A clause about bf16 on a CPU that only emulates it; empty where the CPU has it."""
    speedup = bf16_speedup(rounds=1)
    if speedup >= 1:
        return ""
    return f", but {_measured(speedup)}; --precision auto would take fp32"


def _measured(speedup: float) -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    return f"measured on this CPU ({capability}): bf16 runs at {speedup:.2f}x of fp32's speed"


def bf16_speedup(*, rounds: int = 4) -> float:
    """Speed of this CPU under bf16 autocast over fp32, training a small convolutional network."""
    probe = nn.Sequential(
        nn.Conv2d(64, 256, 1), nn.Conv2d(256, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)
    )
    # As large as a training batch: on less, what casting costs hides what bf16 wins.
    batch = torch.rand(4, 64, 48, 48)

    def seconds(*, bf16: bool) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = probe(batch).float().abs().mean()
        loss.backward()
        return time.perf_counter() - start

    # In turn, the best of each: the load of the machine must not choose.
    times = [(seconds(bf16=False), seconds(bf16=True)) for _ in range(rounds + 1)][1:]
    return min(fp32 for fp32, _ in times) / min(bf16 for _, bf16 in times)

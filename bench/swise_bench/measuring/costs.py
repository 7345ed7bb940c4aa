"""Counts of a subject, at the sizes at which the literature states them."""

from pathlib import Path

from swise_bench.results.values import Cost, NotMeasured
from swise_bench.subjects.spec import Subject, load_network
from swise_deploy.errors import first_line
from swise_export.counting import NTIRE_LR_SIZE, Counts, count_onnx, lr_size_for_hr
from swise_export.interface.onnx_file import read_onnx_file


def count_subject(
    subject: Subject, path: Path | None, scale: int
) -> tuple[Cost, ...] | NotMeasured:
    """Count at a 1280x720 output and at 256x256 LR.

    Args:
        subject: The subject.
        path: Its file; None for a torch network.
        scale: Output size over input size; 0 where it is unknown.
    """
    try:
        return _count(subject, path, scale)
    except Exception as error:  # noqa: BLE001  # torch and onnx have no base class of errors
        return NotMeasured(first_line(error))


def _count(subject: Subject, path: Path | None, scale: int) -> tuple[Cost, ...] | NotMeasured:
    if scale == 0:
        return NotMeasured("its scale is unknown")
    sizes = (lr_size_for_hr(scale), NTIRE_LR_SIZE)
    if path is None:
        from swise_bench.measuring.torch_counts import count_torch

        module = load_network(subject).module
        return tuple(_cost(count_torch(module, lr_size=size), "torch network") for size in sizes)
    if path.suffix != ".onnx":
        return NotMeasured(f"{path.suffix} files hold no graph to count; count the ONNX file")
    multiple = read_onnx_file(path).interface.multiple
    fitting = ((-(-w // multiple) * multiple, -(-h // multiple) * multiple) for w, h in sizes)
    counts = [count_onnx(path, lr_size=size) for size in fitting]
    unique = {c.lr_size: c for c in counts}
    return tuple(_cost(c, "ONNX graph") for c in unique.values())


def _cost(counts: Counts, counted_from: str) -> Cost:
    return Cost(
        counts.lr_size,
        counts.sr_size,
        counts.params,
        counts.mult_adds,
        counts.activations,
        counts.num_convolutions,
        counts.traffic_bytes,
        counts.uncounted,
        counts.unknown,
        counted_from,
    )

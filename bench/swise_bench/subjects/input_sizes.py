"""Input sizes and batches of the latency."""

from collections.abc import Sequence
from pathlib import Path

from swise_bench.subjects.files import fixed_batch, fixed_size
from swise_bench.subjects.spec import Subject
from swise_deploy.errors import InputError
from swise_engines.tensorrt.manifest import read_manifest
from swise_engines.tensorrt.profiles import Extent

DEFAULT_LR_SIZE = (160, 90)

LrSize = tuple[int, int]
"""(width, height) in pixels."""


def choose_lr_sizes(asked: Sequence[LrSize], subjects: Sequence[Subject]) -> tuple[LrSize, ...]:
    """The sizes that were asked for; else the one that a file is made for; else 160x90.

    Raises:
        InputError: An ONNX file takes one size alone, and another one was asked for or is the only
            one of another file.
    """
    paths = {subject.name: subject.path for subject in subjects if subject.path is not None}
    only = {n: size for n, path in paths.items() if (size := fixed_size(path)) is not None}
    made_for = [
        *only.values(),
        *(size for path in paths.values() if (size := _typical_size(path)) is not None),
    ]
    chosen = tuple(asked) or tuple(made_for[:1]) or (DEFAULT_LR_SIZE,)
    for name, (width, height) in only.items():
        if any(size != (width, height) for size in chosen):
            sizes = ", ".join(f"{w}x{h}" for w, h in chosen)
            raise InputError(
                f"{name} takes {width}x{height} alone, which does not go with {sizes}. Measure "
                f"files of one size together, with --size {width}x{height} or without --size"
            )
    return chosen


def choose_batches(asked: Sequence[int], subjects: Sequence[Subject]) -> tuple[int, ...]:
    """The batches that were asked for; else the only one that a file takes; else 1.

    Raises:
        InputError: An ONNX file takes one number of pictures alone, and another one was asked for
            or is the only one of another file.
    """
    only = {
        subject.name: batch
        for subject in subjects
        if (batch := fixed_batch(subject.path)) is not None
    }
    chosen = tuple(asked) or tuple(only.values())[:1] or (1,)
    for name, batch in only.items():
        if any(other != batch for other in chosen):
            others = ", ".join(map(str, chosen))
            raise InputError(
                f"{name} takes {batch} pictures a call alone, which does not go with {others}. "
                f"Measure it with --batch {batch} beside files that take {batch}, or export it "
                "with an open batch"
            )
    return chosen


def _typical_size(engine: Path) -> LrSize | None:
    """The size that an engine is tuned for; None where it takes 160x90, and for other files."""
    manifest = None if engine.suffix == ".onnx" else read_manifest(engine)
    if manifest is None or any(p.takes(Extent(1, *DEFAULT_LR_SIZE)) for p in manifest.profiles):
        return None
    typical = manifest.profiles[0].opt
    return typical.width, typical.height

"""Two subjects against each other: pixels, PSNR between their outputs, quality, time."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from swise_bench.measuring.latency import compare_latencies, measure_latency
from swise_bench.results.values import Latency, Ratio
from swise_bench.subjects.files import fixed_batch
from swise_bench.subjects.input_sizes import choose_batches, choose_lr_sizes
from swise_bench.subjects.resolve_auto import resolve_auto
from swise_bench.subjects.spec import Subject, open_subject, parse_subject
from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import MetricName, psnr
from swise_deploy.evaluation.pairs import evaluate, mean_quality, read_pairs
from swise_deploy.pictures.folders import find_images, sample_paths
from swise_deploy.runner import Runner, upscale


@dataclass(frozen=True, slots=True)
class CompareConfig:
    """One comparison.

    Attributes:
        first: ARTEFACT[@RUNNER], the reference.
        second: ARTEFACT[@RUNNER].
        images: Folder of ground truth; None for the shipped samples.
        lr_size: Input size of the latency, (W, H); None for what the files are made for.
        threads: Threads of every runtime on the CPU.
        max_seconds: Time of the counted rounds for each.
        cache: Folder for exported files.
    """

    first: str
    second: str
    images: Path | None
    lr_size: tuple[int, int] | None
    threads: int
    max_seconds: float
    cache: Path


@dataclass(frozen=True, slots=True)
class PictureDifference:
    """Outputs of one picture against each other.

    Attributes:
        picture: Its name.
        max_difference: Largest difference of 8-bit values.
        share_different: Share of the values that differ.
        psnr_db: PSNR between the two, RGB; None where they are equal.
    """

    picture: str
    max_difference: int
    share_different: float
    psnr_db: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two subjects side by side.

    Attributes:
        first: The reference.
        second: The other.
        scale: Output size over input size.
        images: Name of the pictures.
        pictures: Each picture, the most different first.
        first_quality: Means against the ground truth.
        second_quality: The same of the other.
        first_latency: Time of the reference.
        ratio: Time of the second over that of the first.
    """

    first: str
    second: str
    scale: int
    images: str
    pictures: tuple[PictureDifference, ...]
    first_quality: dict[MetricName, float]
    second_quality: dict[MetricName, float]
    first_latency: Latency
    ratio: Ratio


def compare(config: CompareConfig) -> Comparison:
    """Run both on the same pictures, and time them in turn.

    Raises:
        InputError: A subject cannot be used, or their scales differ.
        SwiseError: One of them fails.
    """
    subjects = [
        resolve_auto(parse_subject(text), threads=config.threads, cache=config.cache)
        for text in (config.first, config.second)
    ]
    paths = find_images(config.images) if config.images else sample_paths()
    with ExitStack() as stack:
        folder = config.cache / "exported"
        runners = [
            stack.enter_context(open_subject(s, threads=config.threads, folder=folder))
            for s in subjects
        ]
        scales = [runner.scale for runner in runners]
        if scales[0] != scales[1]:
            raise InputError(
                f"{config.first} is x{scales[0]} and {config.second} is x{scales[1]}; expected "
                "files of one scale"
            )
        return _compared(config, subjects, runners, paths)


def _compared(
    config: CompareConfig,
    subjects: Sequence[Subject],
    runners: Sequence[Runner],
    paths: Sequence[Path],
) -> Comparison:
    scale = runners[0].scale
    pairs = read_pairs(paths, scale)
    upscalers = [
        partial(upscale, runner, batch=fixed_batch(subject.path))
        for subject, runner in zip(subjects, runners, strict=True)
    ]
    differences = []
    for pair in pairs:
        one, other = (run(pair.lr).astype(np.float64) for run in upscalers)
        apart = np.abs(one - other)
        between = psnr(one, other)
        differences.append(
            PictureDifference(
                pair.name,
                int(apart.max()),
                float(np.mean(apart > 0)),
                between if np.isfinite(between) else None,
            )
        )
    qualities = [mean_quality(evaluate(run, pairs, scale)).finite() for run in upscalers]
    names = ["first", "second"]
    lr_sizes = choose_lr_sizes([config.lr_size] if config.lr_size else [], subjects)
    latencies = measure_latency(
        dict(zip(names, runners, strict=True)),
        lr_size=lr_sizes[0],
        batch=choose_batches([], subjects)[0],
        max_seconds=config.max_seconds,
    )
    return Comparison(
        first=config.first,
        second=config.second,
        scale=scale,
        images=config.images.name if config.images else "shipped samples",
        pictures=tuple(sorted(differences, key=lambda d: -d.max_difference)),
        first_quality=dict(qualities[0].values),
        second_quality=dict(qualities[1].values),
        first_latency=latencies["first"],
        ratio=compare_latencies(latencies, "first")[0],
    )

"""The table of the SwiseNet paper: published, measured here, and the difference."""

import dataclasses
import functools
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swise_bench.measuring.quality import Upscale, score_pictures
from swise_bench.reports.text_tables import MISSING, TextTable
from swise_bench.results.values import NotMeasured
from swise_bench.subjects.spec import Subject, open_subject
from swise_deploy.checkpoints.shipped import WEIGHTS_SUFFIXES, shipped_weights
from swise_deploy.command.console import progress
from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import METRICS, MetricName, Quality
from swise_deploy.evaluation.pairs import mean_quality
from swise_deploy.networks.published import COUNTS
from swise_deploy.networks.registry import NETWORKS, build_network
from swise_deploy.pictures.files import RgbImage
from swise_deploy.pictures.folders import find_images
from swise_deploy.pictures.imresize import imresize
from swise_deploy.runner import upscale
from swise_deploy.storage.documents import document_from_json, read_document
from swise_deploy.storage.files import sha256_of
from swise_export.counting import lr_size_for_hr

if TYPE_CHECKING:
    from swise_deploy.checkpoints.load import LoadedNetwork

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
SETS = ("Set5", "Set14", "B100", "Urban100")
BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class Published:
    """One row of the paper's table; None where it prints nothing."""

    params_k: float | None
    mult_adds_g: float | None
    scores: dict[str, Quality]


@dataclass(frozen=True, slots=True)
class TableRow:
    """A network at a scale on a set.

    Attributes:
        network: Name in the registry, or "bicubic".
        scale: Output size over input size.
        image_set: One of SETS, or another that was asked for.
        measured: Mean scores here, or why there are none.
        published: What is printed; None for a network without a published table.
        params: Counted parameters; None for bicubic.
        mult_adds: Counted MACs at a 1280x720 output.
        source: The weights.
        runner: What ran the network.
        num_known: Pictures whose scores an earlier run had found.
        num_pictures: Pictures in all.
    """

    network: str
    scale: int
    image_set: str
    measured: Quality | NotMeasured
    published: Published | None
    params: int | None
    mult_adds: int | None
    source: str = ""
    runner: str = ""
    num_known: int = 0
    num_pictures: int = 0


@dataclass(frozen=True, slots=True)
class _PublishedRow:
    network: str
    scale: int
    scores: dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class _PublishedTable:
    """The file table1.json: rows of the paper's table, and of others for its figure."""

    source: str
    conventions: str
    metrics: tuple[MetricName, ...]
    rows: tuple[_PublishedRow, ...]
    others: tuple[_PublishedRow, ...]
    others_source: str = ""


@functools.cache
def published_table() -> dict[tuple[str, int], Published]:
    """Published rows by network and scale: the paper's table, and others' for its figure."""
    content = resources.files("swise_bench").joinpath("table1.json").read_bytes()
    document = document_from_json(content, _PublishedTable)
    table = {}
    for row in document.rows + document.others:
        counts = COUNTS.get(row.network, {}).get(row.scale)
        table[row.network, row.scale] = Published(
            None if counts is None else counts.params_k,
            None if counts is None else counts.mult_adds_g,
            {
                name: Quality(dict(zip(document.metrics, values, strict=True)))
                for name, values in row.scores.items()
            },
        )
    return table


def document_from_rows(rows: Sequence[TableRow]) -> dict[str, object]:
    """The rows as JSON types."""
    return {"schema_version": SCHEMA_VERSION, "rows": [_document_from_row(row) for row in rows]}


def _document_from_row(row: TableRow) -> dict[str, object]:
    document = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
    document["measured"] = (
        {"not_measured": row.measured.not_measured}
        if isinstance(row.measured, NotMeasured)
        else dict(row.measured.values)
    )
    if row.published is not None:
        document["published"] = {
            "params_k": row.published.params_k,
            "mult_adds_g": row.published.mult_adds_g,
            "scores": {name: dict(score.values) for name, score in row.published.scores.items()},
        }
    return document


def find_sets(data: Path, wanted: Sequence[str]) -> dict[str, list[Path]]:
    """Ground truths by set: DATA/Set5/HR/*, or DATA/Set5/*.

    Args:
        data: Holds a folder for each set.
        wanted: Names of sets; empty for those of the paper that are there.

    Raises:
        InputError: A wanted set is not there, or none of the paper's.
    """
    found = {}
    for name in wanted or SETS:
        folder = next((f for f in (data / name / "HR", data / name) if f.is_dir()), None)
        if folder is not None:
            found[name] = find_images(folder)
    missing = [name for name in wanted or SETS if name not in found]
    if (wanted and missing) or not found:
        raise InputError(
            f"no folder for {', '.join(missing)} in {data}. Expected one for each set, such as "
            f"{data / missing[0] / 'HR'}"
        )
    return found


def measure_table(
    sets: dict[str, list[Path]],
    *,
    weights: Path | None,
    networks: Sequence[str],
    threads: int,
    cache: Path,
    scales: Sequence[int] = (2, 3, 4),
    runner: str = "torch",
) -> Iterator[TableRow]:
    """Measure row by row: bicubic, the shipped networks, and every network among the weights.

    Networks of the paper's table and figure of which no weights are at hand have their row, too.

    Args:
        sets: Ground truths by set.
        weights: Folder with the published weights of others.
        networks: Only these; empty for all.
        threads: Threads of torch.
        cache: Folder that remembers every picture's score.
        scales: Only these.
        runner: What runs the networks, a name of NETWORK_RUNNERS.
    """
    for scale in sorted(set(scales)):
        if not networks or BICUBIC in networks:
            run = partial(_bicubic, scale=scale)
            identity = "bicubic, MATLAB imresize"
            yield from _rows(
                BICUBIC, scale, run, identity=identity, sets=sets, cache=cache, counted=None
            )
        seen = {BICUBIC}
        for network in _networks(weights, scale):
            if networks and network.name not in networks:
                continue
            seen.add(network.name)
            yield from _network_rows(network, sets, threads, cache, runner)
        for name in [n for n, s in published_table() if s == scale and n in NETWORKS]:
            if name not in seen and (not networks or name in networks):
                yield from _rows_without_weights(name, scale, sets)


def _rows_without_weights(name: str, scale: int, sets: Iterable[str]) -> Iterator[TableRow]:
    from swise_bench.measuring.torch_counts import count_torch

    counts = count_torch(build_network(name, scale), lr_size=lr_size_for_hr(scale))
    reason = NotMeasured("no weights: give a folder of them with --weights")
    for image_set in sets:
        published = published_table()[name, scale]
        yield TableRow(name, scale, image_set, reason, published, counts.params, counts.mult_adds)


def _bicubic(lr: RgbImage, *, scale: int) -> RgbImage:
    return np.asarray(imresize(lr, Fraction(scale)), np.uint8)


def _networks(weights: Path | None, scale: int) -> "Iterator[LoadedNetwork]":
    from swise_deploy.checkpoints.load import open_network

    for name in NETWORKS:
        if shipped_weights(name, scale) is not None:
            yield open_network(name, scale=scale)
    paths = (
        sorted(p for p in weights.rglob("*") if p.suffix.lower() in WEIGHTS_SUFFIXES)
        if weights
        else []
    )
    for path in paths:
        if scale not in stated_scales(path):
            continue
        try:
            network = open_network(scale=scale, weights=path)
        except InputError as error:
            logger.info("left out: %s", error)
            continue
        shipped = shipped_weights(network.name, scale)
        if shipped is None or sha256_of(shipped) != network.weights_sha256:
            yield network


def stated_scales(weights: Path) -> frozenset[int]:
    """The scales that a weights file is for, as NAME.json beside it states ("x2"); else all.

    A network that upscales before its first layer takes any scale, and does badly at all but its
    own.
    """
    every = frozenset({2, 3, 4})
    try:
        document = read_document(
            weights.with_suffix(".json"), dict[str, Any], what="the facts", advice=""
        )
    except InputError:
        return every
    stated = str(document.get("scale", ""))
    return frozenset(int(digit) for digit in re.findall(r"(?:^|x)([234])\b", stated)) or every


def _network_rows(
    network: "LoadedNetwork",
    sets: dict[str, list[Path]],
    threads: int,
    cache: Path,
    runner: str,
) -> Iterator[TableRow]:
    from swise_bench.measuring.torch_counts import count_torch

    counts = count_torch(network.module, lr_size=lr_size_for_hr(network.scale))
    weights = Path(network.source)
    subject = Subject(weights.name, runner, None, network.name, weights, network.scale)
    with open_subject(subject, threads=threads, folder=cache / "exported") as opened:
        yield from _rows(
            network.name,
            network.scale,
            partial(upscale, opened),
            identity=f"{network.weights_sha256} {opened.name}",
            sets=sets,
            cache=cache,
            counted=(counts.params, counts.mult_adds),
            source=weights.name,
            runner=opened.name,
        )


def _rows(
    name: str,
    scale: int,
    run: Upscale,
    *,
    identity: str,
    sets: dict[str, list[Path]],
    cache: Path,
    counted: tuple[int, int] | None,
    source: str = "",
    runner: str = "",
) -> Iterator[TableRow]:
    for image_set, paths in sets.items():
        progress(f"{name} x{scale} on {image_set}, {len(paths)} pictures")
        scored = score_pictures(run, paths, scale, identity=identity, cache=cache)
        yield TableRow(
            name,
            scale,
            image_set,
            mean_quality(scored.scores),
            published_table().get((name, scale)),
            counted[0] if counted else None,
            counted[1] if counted else None,
            source,
            runner,
            scored.num_known,
            len(scored.scores),
        )


def text_from_rows(rows: Sequence[TableRow]) -> TextTable:
    """The table with measured, published and difference side by side."""
    cells = []
    for row in rows:
        printed = row.published.scores.get(row.image_set) if row.published else None
        params_k = row.published.params_k if row.published else None
        mult_adds_g = row.published.mult_adds_g if row.published else None
        cells.append(
            (
                f"{row.network} x{row.scale}",
                row.image_set,
                _measured_printed(row.params, params_k, 1e3, "K"),
                _measured_printed(row.mult_adds, mult_adds_g, 1e9, "G"),
                *_score_cells(row.measured, printed),
                row.source or MISSING,
            )
        )
    networks = list(dict.fromkeys(row.network for row in rows))
    reasons = [
        f"{name}: {NETWORKS[name].note}"
        for name in networks
        if name in NETWORKS and NETWORKS[name].note
    ]
    runners = ", ".join(dict.fromkeys(row.runner for row in rows if row.runner))
    missing = dict.fromkeys(
        f"{row.network} x{row.scale}: not measured, {row.measured.not_measured}"
        for row in rows
        if isinstance(row.measured, NotMeasured)
    )
    return TextTable(
        "Table 1 of the paper: measured here, published, difference",
        (
            "network",
            "set",
            "params counted (published)",
            "Mult-Adds counted (published)",
            *(text for metric in METRICS.values() for text in (metric.title, "published", "diff")),
            "weights",
        ),
        tuple(cells),
        (
            (
                "Y of BT.601, border of `scale` pixels left out, LR by MATLAB's bicubic; "
                "Mult-Adds at a 1280x720 output (x3: LR 426x240)"
            ),
            *([f"run by {runners}"] if runners else []),
            *reasons,
            *missing,
        ),
    )


def _score_cells(measured: Quality | NotMeasured, printed: Quality | None) -> Iterator[str]:
    """Measured, printed and their difference, for each metric."""
    for name, metric in METRICS.items():
        here = None if isinstance(measured, NotMeasured) else measured.values.get(name)
        there = None if printed is None else printed.values.get(name)
        difference = None if here is None or there is None else here - there
        yield MISSING if here is None else f"{here:.{metric.digits}f}"
        yield MISSING if there is None else f"{there:.{metric.digits}f}"
        yield MISSING if difference is None else f"{difference:+.{metric.digits}f}"


def _measured_printed(counted: int | None, printed: float | None, unit: float, suffix: str) -> str:
    if counted is None:
        return MISSING
    published = f"{printed:g}{suffix}" if printed else MISSING
    return f"{counted / unit:.1f}{suffix} ({published})"

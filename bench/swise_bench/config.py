"""Configurations of `swise-bench`: what to measure, and where the results go."""

from dataclasses import dataclass, field
from pathlib import Path

from swise_deploy.errors import InputError

MAX_REGRESS = 0.05
"""Slowdown that a baseline allows by default."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Destinations of the results.

    Attributes:
        as_json: True prints a JSON document on stdout instead of tables.
        document: File of the JSON document.
        csv: File of the numbers as CSV.
        markdown: File of the tables as Markdown.
        html: File of the page.
        figure: File of the figure: one crop by every method, a PNG.
    """

    as_json: bool = False
    document: Path | None = None
    csv: Path | None = None
    markdown: Path | None = None
    html: Path | None = None
    figure: Path | None = None

    def __post_init__(self) -> None:
        for path in (self.document, self.csv, self.markdown, self.html, self.figure):
            if path is not None and path.is_dir():
                raise InputError(
                    f"cannot write {path}: {path} is a folder. Give the name of a file"
                )


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """One benchmark run.

    Attributes:
        subjects: ARTEFACT[@RUNNER], the first that runs being the reference.
        lr_sizes: Input sizes of the latency, (W, H); empty for what the files are made for.
        batches: Pictures per call; empty for what the files are made for.
        threads: Threads of every runtime on the CPU.
        min_runs: Rounds to make if time allows.
        max_seconds: Time of the counted rounds for each subject, size and batch.
        images: Folders of ground truth.
        lr_images: The LR pictures of each of `images`; empty makes them by MATLAB's bicubic.
        with_memory: True measures memory.
        with_energy: True measures energy.
        energy_seconds: Seconds of rest, and then of work, for it.
        with_layers: True times every layer.
        targets: Devices to predict for.
        trtexec_results: Folders of `swise-build --trtexec` that were on a device.
        is_full: True measures everything and predicts for every device and for this machine.
        cache: Folder for scores and exported files; None for the user's.
        outputs: Where results go.
        baseline: An earlier document to compare with.
        max_regress: Allowed slowdown against it, 0.05 for 5%.
    """

    subjects: tuple[str, ...]
    lr_sizes: tuple[tuple[int, int], ...] = ()
    batches: tuple[int, ...] = ()
    threads: int = 1
    min_runs: int = 20
    max_seconds: float = 10.0
    images: tuple[Path, ...] = ()
    lr_images: tuple[Path, ...] = ()
    with_memory: bool = False
    with_energy: bool = False
    energy_seconds: float = 5.0
    with_layers: bool = False
    targets: tuple[str, ...] = ()
    trtexec_results: tuple[Path, ...] = ()
    is_full: bool = False
    cache: Path | None = None
    outputs: Outputs = field(default_factory=Outputs)
    baseline: Path | None = None
    max_regress: float | None = None

    def __post_init__(self) -> None:
        if not self.subjects:
            raise InputError(
                "nothing to measure. Give a file or a network, such as: "
                "swise-bench swisenet:2@torch"
            )
        if self.outputs.figure and not self.images:
            raise InputError("--figure needs pictures. Give --images DIR")
        if self.lr_images and len(self.lr_images) != len(self.images):
            raise InputError(
                f"{len(self.lr_images)} times --lr-images; expected one for each --images "
                f"({len(self.images)})"
            )
        if self.lr_images and self.outputs.figure:
            raise InputError("--figure shows LR made by bicubic. Leave out --figure or --lr-images")
        if self.max_regress is not None and self.baseline is None:
            raise InputError(f"--max-regress {self.max_regress:.1%} needs --baseline JSON")


@dataclass(frozen=True, slots=True)
class TableConfig:
    """One reproduction of the paper's table.

    Attributes:
        data: Folder with a folder for each set.
        weights: Folder with published weights of others.
        networks: Only these; empty for all.
        sets: Only these; empty for those of the paper that are there.
        scales: Only these.
        runner: What runs the networks, as after @.
        threads: Threads of torch or of the runtime.
        cache: Folder for scores and exported files; None for the user's.
        outputs: Where results go.
    """

    data: Path
    weights: Path | None = None
    networks: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    scales: tuple[int, ...] = (2, 3, 4)
    runner: str = "torch"
    threads: int = 1
    cache: Path | None = None
    outputs: Outputs = field(default_factory=Outputs)

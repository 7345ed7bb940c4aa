"""Settings of one run of `swise-upscale`."""

from dataclasses import dataclass, field
from pathlib import Path

from swise_deploy.errors import InputError
from swise_deploy.pictures.formats import Format
from swise_engines.choosing.candidates import RunnerName
from swise_engines.upscaling.video.options import VideoOptions

STANDARD_STREAM = "-"
"""As an input stdin, as an output stdout."""


@dataclass(frozen=True, slots=True)
class UpscaleConfig:
    """The inputs, the output, the network, and how results are written.

    Attributes:
        inputs: Pictures, videos, folders and glob patterns, or "-" alone for stdin.
        output: A file for one input, a folder for several, "-" for stdout.
        model: An ONNX file, an engine, weights, the name of a network, or "auto".
        weights: Weights for a network that is given by name.
        scale: None takes the scale of the model.
        runner: Runtime of an ONNX file or a network.
        tile: Side of the tiles in input pixels; None follows from the memory.
        memory_mib: Memory that one run of the network may take.
        threads: CPU threads of the network.
        remeasure: Measure again which runner is fastest.
        max_drift_db: PSNR-Y that "auto" may lose for speed; None for the same picture.
        exact: Make tiles equal the full frame.
        overwrite: Replace results that exist; without it they are skipped.
        as_json: Print the summary as JSON.
        is_quiet: Print errors only.
        file_format: Format of the pictures; None keeps that of each input.
        quality: 1 to 100, for jpg, webp and avif; None is 95, and lossless for lossless WebP.
        ray_address: Ray cluster that upscales the pictures; None upscales them here.
        video: How videos are encoded.

    Raises:
        InputError: Two settings contradict each other.
    """

    inputs: tuple[str, ...]
    output: str
    model: str = "auto"
    weights: Path | None = None
    scale: int | None = None
    runner: RunnerName = "auto"
    tile: int | None = None
    memory_mib: int | None = None
    threads: int | None = None
    remeasure: bool = False
    exact: bool = False
    max_drift_db: float | None = None
    overwrite: bool = False
    as_json: bool = False
    is_quiet: bool = False
    file_format: Format | None = None
    quality: int | None = None
    ray_address: str | None = None
    video: VideoOptions = field(default_factory=VideoOptions)

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if self.memory_mib is not None and self.tile is not None:
            raise InputError("--tile and --memory both decide the size of tiles. Give one of them")
        if self.memory_mib is not None and self.ray_address is not None:
            raise InputError("--memory is not passed to Ray's workers. Use --tile")
        if self.max_drift_db is not None and self.runner != "auto":
            raise InputError(
                f"--max-drift is for the choice of a runner, and --runner {self.runner} names one. "
                "Leave one of them out"
            )
        if self.max_drift_db is not None and self.ray_address is not None:
            raise InputError("--max-drift is not passed to Ray's workers. Leave one of them out")
        if self.exact and self.ray_address is not None:
            raise InputError("--exact is not passed to Ray's workers. Leave one of them out")
        if self.uses_standard_streams and len(self.inputs) > 1:
            raise InputError(
                f"{len(self.inputs)} inputs, and stdin or stdout among the files. "
                "With - as input or output, give one input"
            )

    @property
    def uses_standard_streams(self) -> bool:
        """True if a picture is read from stdin or written to stdout."""
        return STANDARD_STREAM in self.inputs or self.output == STANDARD_STREAM

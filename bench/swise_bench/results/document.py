"""What a benchmark run found, as values, and as the JSON document that other programs read."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swise_bench.results.host import Host, Quietness
from swise_deploy.errors import InputError
from swise_deploy.storage.files import read_json
from swise_deploy.timing import Interval, Timing

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """Stands where a number would, with the reason why there is none."""

    not_measured: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network or file costs at one input size, counted.

    Attributes:
        lr_size: Input size, (W, H).
        sr_size: Output size, (W, H).
        params: Learned parameters, or stored weights of a file.
        mult_adds: MACs of convolutions and matrix products.
        activations: Output elements of the same.
        num_convolutions: Convolutions.
        traffic_bytes: Bytes that all operators read and write, unfused.
        uncounted: Operators that compute without Mult-Adds, and how many.
        unknown: What could not be counted, with the reason.
        counted_from: "ONNX graph" or "torch network".
    """

    lr_size: tuple[int, int]
    sr_size: tuple[int, int]
    params: int
    mult_adds: int
    activations: int
    num_convolutions: int
    traffic_bytes: int
    uncounted: Mapping[str, int]
    unknown: Mapping[str, str]
    counted_from: str


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one subject takes at one input size and batch.

    Attributes:
        lr_size: Input size, (W, H).
        batch: Pictures in one call.
        timing: All the samples.
        clock: What was timed and how, host copies included.
        device_ms: The device's own time of the counted runs by its events, copies left out; or why
            there is none.
    """

    lr_size: tuple[int, int]
    batch: int
    timing: Timing
    clock: str
    device_ms: tuple[float, ...] | NotMeasured

    @property
    def images_per_second(self) -> float:
        """Throughput at the median."""
        return self.batch * 1000 / self.timing.p50_ms


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Time of one layer, as the runtime's own profiler reports it."""

    name: str
    op_type: str
    p50_ms: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a run in a process of its own.

    Attributes:
        peak_rss_bytes: Highest resident size of the process.
        before_load_rss_bytes: Resident size before the artefact was loaded, its runtime imported.
        after_load_rss_bytes: Resident size after it was loaded.
        device_bytes: Highest use of device memory, or why there is none.
        lr_size: Input size, (W, H).
    """

    peak_rss_bytes: int
    before_load_rss_bytes: int
    after_load_rss_bytes: int
    device_bytes: int | NotMeasured
    lr_size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of a frame, above what the idle machine takes.

    Attributes:
        joules_per_frame: (active - idle power) x time / frames.
        active_watts: Mean power while frames were processed.
        idle_watts: Mean power before.
        sensor: What was read.
        num_frames: Frames processed.
        seconds: For how long.
    """

    joules_per_frame: float
    active_watts: float
    idle_watts: float
    sensor: str
    num_frames: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PictureScore:
    """One picture: scores against the ground truth, and their loss against fp32 torch."""

    picture: str
    psnr_y_db: float
    ssim_y: float
    drift_psnr_y_db: float | None
    drift_ssim_y: float | None


@dataclass(frozen=True, slots=True)
class QualityResult:
    """Quality over a folder of ground truth.

    Attributes:
        images: The folder, or what stands for it.
        psnr_y_db: Mean PSNR-Y.
        ssim_y: Mean SSIM-Y.
        drift_psnr_y_db: Mean PSNR-Y minus that of the fp32 torch network; None without one.
        drift_ssim_y: The same for SSIM-Y.
        pictures: Every picture.
    """

    images: str
    psnr_y_db: float
    ssim_y: float
    drift_psnr_y_db: float | None
    drift_ssim_y: float | None
    pictures: tuple[PictureScore, ...]

    @property
    def worst(self) -> PictureScore:
        """The picture that lost most, or scored lowest where no drift is known."""
        return min(
            self.pictures,
            key=lambda p: p.psnr_y_db if p.drift_psnr_y_db is None else p.drift_psnr_y_db,
        )


@dataclass(frozen=True, slots=True)
class SubjectResult:
    """Everything that was found out about one subject.

    Attributes:
        name: As it was given.
        runner: What ran it, with its version.
        model: Name in the registry; "" if unknown.
        scale: Output size over input size.
        precision: As the file states it, or as its graph computes.
        io: How pictures enter and leave.
        path: Name of the file that ran; "" for a torch network.
        sha256: Its hash.
        size_bytes: Its size.
        load_ms: Opening and activating.
        costs: Counts at a 1280x720 output and at 256x256 LR.
        latencies: One for each input size and batch.
        layer_times: Slowest first.
        memory: Of a process of its own.
        energy: Of a frame.
        quality: One for each folder of pictures.
    """

    name: str
    runner: str
    model: str
    scale: int
    precision: str
    io: str
    path: str
    sha256: str
    size_bytes: int
    load_ms: float
    costs: tuple[Cost, ...] | NotMeasured
    latencies: tuple[Latency, ...]
    layer_times: tuple[LayerTime, ...] | NotMeasured
    memory: Memory | NotMeasured
    energy: Energy | NotMeasured
    quality: tuple[QualityResult, ...] | NotMeasured


@dataclass(frozen=True, slots=True)
class TrtexecSummary:
    """What trtexec reports of an engine.

    Attributes:
        version: Of its TensorRT, such as "10.3.0"; "" where it does not say.
        throughput_qps: Calls per second.
        rows_ms: Name of a time, such as "GPU Compute Time", to its figures: "min", "max", "mean",
            "median", and percentiles such as "p99".
    """

    version: str
    throughput_qps: float
    rows_ms: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class TrtexecResult:
    """One engine in trtexec at one input size.

    Attributes:
        name: The subject as it was written.
        lr_size: Input size, (W, H).
        batch: Pictures in one call.
        summary: What was reported, or why nothing was.
    """

    name: str
    lr_size: tuple[int, int]
    batch: int
    summary: TrtexecSummary | NotMeasured


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times longer a subject takes than the reference, from the same rounds.

    Attributes:
        subject: Whose time.
        reference: Over whose time.
        lr_size: Input size, (W, H).
        batch: Pictures in one call.
        times_slower: Ratio of the wall-clock times.
        times_cpu: Ratio of the processor times, all threads together.
    """

    subject: str
    reference: str
    lr_size: tuple[int, int]
    batch: int
    times_slower: Interval
    times_cpu: Interval


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A whole run; what trtexec said is not in turn with the subjects."""

    created: str
    command: str
    threads: int
    host: Host
    quietness: Quietness
    subjects: tuple[SubjectResult, ...]
    ratios: tuple[Ratio, ...]
    trtexec: tuple[TrtexecResult, ...] = ()
    schema_version: int = SCHEMA_VERSION


def document_from_benchmark(benchmark: Benchmark) -> dict[str, object]:
    """A JSON document; figures that follow from the samples stand beside them."""
    document = _plain(benchmark)
    assert isinstance(document, dict), "a dataclass becomes an object"
    document["warning"] = benchmark.quietness.warning
    return document


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        document = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Timing):
            document |= {"p50_ms": value.p50_ms, "p90_ms": value.p90_ms, "p99_ms": value.p99_ms}
            document["median_ms"] = _plain(value.median_ms)
        if isinstance(value, Latency):
            document["images_per_second"] = value.images_per_second
        if isinstance(value, QualityResult):
            document["worst"] = value.worst.picture
        return document
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_document(path: Path) -> dict[str, object]:
    """Read a document that `document_from_benchmark` made.

    Raises:
        InputError: It is missing, no JSON, or of another schema.
    """
    advice = "Give a file that `swise-bench --output` wrote"
    document = read_json(path, what="the results", advice=advice)
    if not {"subjects", "ratios", "host", "threads"} <= document.keys():
        raise InputError(f"{path} is no result of swise-bench. {advice}")
    found = document.get("schema_version")
    if found != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema_version {found!r}; expected {SCHEMA_VERSION}, "
            "as `swise-bench --json` writes it. Measure the baseline again with this version"
        )
    return document

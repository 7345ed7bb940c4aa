"""The results of a benchmark run, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from swise_bench.results.host import Host, Quietness
from swise_deploy.evaluation.metrics import METRICS, MetricName
from swise_deploy.timing import Interval, Timing

SCHEMA_VERSION = 1

Values = Mapping[MetricName, float | None]
"""Value of each metric; None where it is not defined: a picture below the window of SSIM."""


class Outcome(msgspec.Struct, frozen=True, tag=True):
    """A result that may be missing: its kind tells it from NotMeasured in a document."""


class NotMeasured(Outcome, frozen=True, tag=True):
    """Stands where a result would, with the reason why there is none."""

    not_measured: str


@dataclass(frozen=True, slots=True)
class Cost:
    """Counted cost of a network or file at one input size.

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
    """Latency of one subject at one input size and batch.

    Attributes:
        lr_size: Input size, (W, H).
        batch: Pictures in one call.
        timing: All the samples.
        clock: What was timed and how, host copies included.
        device_ms: The device's own time of the counted runs by its events, copies left out; or why
            there is none.
        quietness: How much other programs took of the machine meanwhile; None where an older
            version measured.
    """

    lr_size: tuple[int, int]
    batch: int
    timing: Timing
    clock: str
    device_ms: tuple[float, ...] | NotMeasured
    quietness: Quietness | None = None

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


class Memory(Outcome, frozen=True, tag=True):
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


class Energy(Outcome, frozen=True, tag=True):
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
    """Scores of one picture.

    Attributes:
        picture: Its name.
        values: Against the ground truth.
        drift: The same minus those of the fp32 torch network; empty without one.
    """

    picture: str
    values: Values
    drift: Values

    @property
    def badness(self) -> tuple[float, float]:
        """Sorts pictures from the worst: by what they lost, else by their score."""
        first = next(iter(METRICS))
        value = self.values.get(first)
        return self.drift.get(first) or 0.0, METRICS[first].exact if value is None else value


@dataclass(frozen=True, slots=True)
class QualityResult:
    """Quality over a folder of ground truth.

    Attributes:
        images: Name of the folder, or of what stands for it.
        values: Means over the pictures.
        drift: Means minus those of the fp32 torch network; empty without one.
        pictures: Every picture.
        skipped: Pictures without a score, and why.
        exact: Pictures that some subject of the run reproduces exactly: their PSNR is infinite, and
            the means of PSNR of all subjects leave them out.
    """

    images: str
    values: Values
    drift: Values
    pictures: tuple[PictureScore, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    exact: tuple[str, ...] = ()

    @property
    def worst(self) -> PictureScore:
        """The picture that lost most, or scored lowest where no drift is known."""
        return min(self.pictures, key=lambda picture: picture.badness)


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
        failures: What could not be measured, by what was to be measured, and why.
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
    failures: Mapping[str, str] = field(default_factory=dict)


class TrtexecSummary(Outcome, frozen=True, tag=True):
    """Report of trtexec about an engine.

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
    """Time of a subject relative to the reference, from the same rounds.

    Attributes:
        subject: Whose time.
        reference: Over whose time.
        lr_size: Input size, (W, H).
        batch: Pictures in one call.
        times_slower: Ratio of the wall-clock times.
        times_cpu: Ratio of the processor times, all threads together.
        quietness: How much other programs took of the machine meanwhile; None where an older
            version measured.
    """

    subject: str
    reference: str
    lr_size: tuple[int, int]
    batch: int
    times_slower: Interval
    times_cpu: Interval
    quietness: Quietness | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A whole run.

    Attributes:
        created: When it ended, ISO 8601.
        command: The command line.
        threads: Threads of every runtime on the CPU.
        host: The machine.
        quietness: How much other programs took of it during the latencies.
        subjects: In the order in which they were given.
        ratios: Against the first subject that ran.
        trtexec: Reports of trtexec, which does not run in turn with the subjects.
        is_complete: False for a run that was interrupted, or is still going on.
        schema_version: Version of the document.
    """

    created: str
    command: str
    threads: int
    host: Host
    quietness: Quietness
    subjects: tuple[SubjectResult, ...]
    ratios: tuple[Ratio, ...]
    trtexec: tuple[TrtexecResult, ...] = ()
    is_complete: bool = True
    schema_version: int = SCHEMA_VERSION

    @property
    def failures(self) -> list[str]:
        """Everything that was to be measured and could not be, with the reason."""
        return [
            f"{subject.name}: {what}: {why}"
            for subject in self.subjects
            for what, why in subject.failures.items()
        ]

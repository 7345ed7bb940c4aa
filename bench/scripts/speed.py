"""Speed of the deploy form against other ways: one interleaved run on this machine's CPU.

    python bench/scripts/speed.py --scale 2 --scale 3 --scale 4

For each scale, the same weights as plain torch.onnx.export and as this project's export, in ONNX
Runtime and in what else is installed of OpenVINO and ncnn, beside torch, eager and compiled:
2 threads, LR 160x90. ncnn runs this project's export, since pnnx cannot convert the plain one.
Ratios are taken within each round, so that other programs disturb them less than the times.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from swise_bench.benchmark import Settings, run_benchmark
from swise_bench.measuring.peaks import measure_peaks
from swise_bench.results.document import document_from_benchmark
from swise_bench.subjects.spec import onnx_path, parse_subject
from swise_deploy.command.console import parse_size, progress, run_command
from swise_deploy.command.dependencies import require
from swise_deploy.errors import BackendMissingError
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import write_json
from swise_export.counting import count_onnx

BASE = ("deploy", "plain", "torch", "compile")
# By the package that they need; it is also the name of its extra.
OPTIONAL = {"openvino": ("plain-openvino", "deploy-openvino"), "ncnn": ("deploy-ncnn",)}


@dataclass(frozen=True, slots=True)
class SpeedConfig:
    """One comparison of the deploy form with other ways to run the same weights.

    Attributes:
        model: Name in the registry.
        scales: Scales, one interleaved run for each.
        lr_size: Input size, (W, H).
        threads: Threads of every runtime.
        max_seconds: Time of the counted rounds for each runner.
        min_runs: Rounds to make if time allows.
        as_json: Whether the documents go to stdout instead of lines.
        output: Folder for one document a scale; None writes none.
    """

    model: str
    scales: tuple[int, ...]
    lr_size: tuple[int, int]
    threads: int
    max_seconds: float
    min_runs: int
    as_json: bool
    output: Path | None


def main() -> int:
    """Measure every scale and print one line for each runner."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="swisenet")
    parser.add_argument("--scale", type=int, action="append", help="default: 2, 3 and 4")
    parser.add_argument("--size", type=parse_size, default=(160, 90), metavar="WxH")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="per runner")
    parser.add_argument("--runs", type=int, default=15, help="at least")
    parser.add_argument("--json", action="store_true", help="the documents on stdout")
    parser.add_argument("--output", type=Path, metavar="DIR", help="one document for each scale")
    options = parser.parse_args()
    config = SpeedConfig(
        model=options.model,
        scales=tuple(options.scale or (2, 3, 4)),
        lr_size=options.size,
        threads=options.threads,
        max_seconds=options.seconds,
        min_runs=options.runs,
        as_json=options.json,
        output=options.output,
    )
    return run_command(lambda: _run(config))


def _run(config: SpeedConfig) -> int:
    kinds = [*BASE, *_optional_kinds()]
    documents = []
    for scale in config.scales:
        names = [f"{config.model}:{scale}@{kind}" for kind in kinds]
        benchmark = run_benchmark(
            Settings(
                subjects=tuple(parse_subject(name) for name in names),
                lr_sizes=(config.lr_size,),
                threads=config.threads,
                min_runs=config.min_runs,
                max_seconds=config.max_seconds,
            )
        )
        peak = measure_peaks(config.threads)
        tera_macs = (peak.tera_ops["fp32"] or 0) / 2
        written = parse_subject(f"{config.model}:{scale}@plain")
        path = onnx_path(written, cache_folder("bench") / "exported")
        assert path is not None, "a plain export is a file"
        macs = count_onnx(path, lr_size=config.lr_size).mult_adds
        share_of_peak = {
            subject.name: macs / 1e12 / (timing.percentile_ms(0) / 1000) / tera_macs
            for subject in benchmark.subjects
            for timing in [subject.latencies[0].timing]
        }
        document = document_from_benchmark(benchmark)
        document["peak"] = {"origin": peak.origin, "share": share_of_peak, "mult_adds": macs}
        documents.append(document)
        if config.output:
            write_json(config.output / f"speed_{config.model}_x{scale}.json", documents[-1])
        if config.as_json:
            continue
        width, height = config.lr_size
        lines = [f"{config.model} x{scale}, LR {width}x{height}, {config.threads} threads"]
        lines += [
            f"  {r.subject:<32} {r.times_slower.value:6.2f} times the time of {r.reference}"
            f"  (95% CI {r.times_slower.low:.2f} to {r.times_slower.high:.2f}),"
            f" {r.times_cpu.value:.2f} times its CPU time"
            f" ({r.times_cpu.low:.2f} to {r.times_cpu.high:.2f})"
            for r in benchmark.ratios
        ]
        lines.append(f"  peak {peak.origin}; the network as written at its fastest run:")
        lines += [f"  {name:<32} {share:6.1%} of it" for name, share in share_of_peak.items()]
        lines += [f"  warning: {w}" for w in [benchmark.quietness.warning] if w]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
    if config.as_json:
        sys.stdout.write(json.dumps(documents, indent=2) + "\n")
    return 0


def _optional_kinds() -> list[str]:
    found: list[str] = []
    for package, kinds in OPTIONAL.items():
        try:
            require(package, extra=package, purpose=f"comparing with {package}")
        except BackendMissingError as error:
            progress(f"skipped: {error}")
        else:
            found += kinds
    return found


if __name__ == "__main__":
    sys.exit(main())

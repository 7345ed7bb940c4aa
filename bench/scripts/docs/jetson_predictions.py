"""Prints the table of docs/jetson.md: predicted latencies of the shipped SwiseNet on each Jetson.

python bench/scripts/docs/jetson_predictions.py
"""

import sys
from collections.abc import Iterator

from swise_bench.prediction.latency_model import load_latency_model, with_expectation
from swise_bench.prediction.roofline import Device, device_from_target, predict
from swise_bench.reports.roofline_tables import expectation_text
from swise_deploy.checkpoints.shipped import resolve_onnx
from swise_deploy.command.console import run_command, size_text
from swise_engines.targets.catalogue import load_targets
from swise_export.counting import Counts, count_onnx

SCALES = (2, 3, 4)
LR_SIZES = ((320, 180), (640, 360))


def _rows() -> Iterator[tuple[str, ...]]:
    counts = [
        count_onnx(resolve_onnx(f"swisenet:{scale}"), lr_size=lr_size)
        for lr_size in LR_SIZES
        for scale in SCALES
    ]
    for target in load_targets().values():
        if target.kind == "jetson":
            device = device_from_target(target)
            mode = device.power_mode or target.notes.partition(";")[0]
            yield (f"`{device.name}`", mode, *(_cell(one, device) for one in counts))


def _cell(counts: Counts, device: Device) -> str:
    prediction = predict("swisenet", counts, device, precision="fp16")
    assert prediction is not None, "every Jetson has its peaks"
    return expectation_text(with_expectation(prediction, load_latency_model()))


def _print() -> int:
    sizes = [f"x{scale} at {size_text(lr_size)}" for lr_size in LR_SIZES for scale in SCALES]
    lines = [
        ("device", "mode, GPU clock", *sizes),
        ("---", "---", *["---:"] * len(sizes)),
        *_rows(),
    ]
    sys.stdout.write("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(_print))

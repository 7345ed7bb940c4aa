"""Make the ONNX files that ship with the package, from the weights that ship with it.

    python bench/scripts/ship_onnx.py

Each is what `swise-export --scale N` writes with `--fp32` or `--fp16`, with its manifest. The base
install upscales with the former, and benchmarks and builds engines with the latter, without torch.
A test compares them with the weights.
"""

import argparse
import sys
from pathlib import Path

from swise_deploy.checkpoints.load import open_network
from swise_deploy.checkpoints.shipped import shipped_names, shipped_weights
from swise_deploy.command.console import progress, run_command
from swise_deploy.precision import RestPrecision
from swise_export.config import ExportConfig
from swise_export.job import export_verified

PRECISIONS: tuple[RestPrecision, ...] = ("fp32", "fp16")


def main() -> int:
    """Write the files beside the weights."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    return run_command(_run)


def _run() -> int:
    for shipped in shipped_names():
        name, _, scale = shipped.partition(" x")
        weights = shipped_weights(name, int(scale))
        assert weights is not None
        network = open_network(name, scale=int(scale))
        for precision in PRECISIONS:
            out: Path = weights.with_name(f"{name}_x{scale}_{precision}.onnx")
            config = ExportConfig(precision=precision, max_drift_db=0.001)
            report = export_verified(network, out, config)
            assert report.manifest.drift is not None
            drift = report.manifest.drift.psnr_y_db
            progress(f"{out.name}: {report.size_bytes:,} bytes, drift {drift:+.4f} dB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

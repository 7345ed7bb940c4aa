"""Make the fp16 ONNX files that ship with the package, from the weights that ship with it.

    python bench/scripts/ship_onnx.py

Each is what `swise-export --fp16 --scale N` writes, with its manifest, so that the base install
upscales, benchmarks and builds engines without torch. A test compares them with the weights.
"""

import argparse
import sys
from pathlib import Path

from swise_deploy.checkpoints.load import open_network
from swise_deploy.checkpoints.shipped import shipped_names, shipped_weights
from swise_deploy.command.console import progress, run_command
from swise_export.config import ExportConfig
from swise_export.job import export_verified


def main() -> int:
    """Write the files beside the weights."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    return run_command(_run)


def _run() -> int:
    for shipped in shipped_names():
        name, _, scale = shipped.partition(" x")
        weights = shipped_weights(name, int(scale))
        assert weights is not None
        out: Path = weights.with_name(f"{name}_x{scale}_fp16.onnx")
        network = open_network(name, scale=int(scale))
        report = export_verified(network, out, ExportConfig(precision="fp16", max_drift_db=0.001))
        assert report.manifest.drift is not None
        drift = report.manifest.drift.psnr_y_db
        progress(f"{out.name}: {report.size_bytes:,} bytes, drift {drift:+.4f} dB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

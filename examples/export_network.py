"""Export SwiseNet x2 in fp16 and refuse it if it loses more than 0.01 dB on the photographs."""

from pathlib import Path

from swise_deploy import open_network
from swise_export import ExportConfig, export_verified

network = open_network("swisenet", scale=2)  # weights=Path("my.pth") for your own
report = export_verified(
    network,
    Path("swisenet_x2_fp16.onnx"),
    ExportConfig(precision="fp16", max_drift_db=0.01),
)
drift = report.manifest.drift
assert drift is not None
print(f"{report.artifact}: {drift.psnr_y_db:+.4f} dB on {drift.images} pictures")

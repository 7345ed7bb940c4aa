"""Build a TensorRT for RTX engine for SM 8.6 (RTX 30 cards); no GPU is needed."""

from pathlib import Path

from swise_deploy.checkpoints.load import open_network
from swise_engines.building.build import build_engine
from swise_engines.building.options import BuildOptions
from swise_engines.cuda.boundary import find_gpu
from swise_engines.targets.catalogue import find_target
from swise_export.tracing.trace import export_onnx

onnx = Path("swisenet_x2.onnx")
export_onnx(open_network("swisenet", scale=2), onnx)
built = build_engine(
    onnx,
    Path("swisenet_x2.sm86.engine"),
    BuildOptions(target=find_target("sm86"), precision="fp32"),
    gpu=find_gpu(),
    cache=None,
    report=lambda _step, _share: None,
    say=print,
)
print(f"{built.path}: {built.manifest.engine_bytes:,} bytes for SM {', '.join(built.manifest.sms)}")

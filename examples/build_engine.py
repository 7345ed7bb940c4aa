"""Build a TensorRT for RTX engine for SM 8.6 (RTX 30 cards); no GPU is needed."""

from pathlib import Path

from swise_deploy.checkpoints.shipped import resolve_onnx
from swise_engines import BuildOptions, build_engine, find_target
from swise_engines.cuda.boundary import find_gpu

onnx = resolve_onnx("swisenet:2")  # fp16, ships with the package; or Path("my.onnx")
built = build_engine(
    onnx,
    Path("swisenet_x2.sm86.engine"),
    BuildOptions(target=find_target("sm86"), precision="fp16"),
    gpu=find_gpu(),
    cache=None,
    report=lambda _step, _share: None,
    notify=print,
)
print(f"{built.path}: {built.manifest.engine_bytes:,} bytes for SM {', '.join(built.manifest.sms)}")

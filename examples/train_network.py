"""Train FSRCNN x2 for twenty steps on the shipped photographs; a folder of yours does better."""

from pathlib import Path

from swise_deploy import TrainConfig, sample_paths, train

train(
    TrainConfig(
        data=sample_paths()[0].parent,
        out=Path("run"),
        cache=Path("pictures"),
        model="fsrcnn",
        steps=20,
        batch_size=4,
        patch_size=24,
        holdout=1,
        val_every=10,
        optimizer="adam",
        precision="fp32",
        accelerator="cpu",
        tensorboard=False,
    )
)
print(f"weights: {Path('run/fsrcnn_x2.safetensors').stat().st_size:,} bytes")

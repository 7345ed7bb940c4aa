"""What a step gives to the network."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("lightning_fabric")

from swise_deploy.training.config import TrainConfig
from swise_deploy.training.data.batches import Batch
from swise_deploy.training.start.trained_form import TrainedForm
from swise_deploy.training.step.losses import LEAST_MSE, minus_psnr
from swise_deploy.training.step.trainer import Trainer, launch_fabric


class Watched(nn.Module):
    """Doubles pictures, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.lr = torch.empty(0)

    def forward(self, lr: Tensor) -> Tensor:
        self.lr = lr.detach()
        return self.gain * nn.functional.interpolate(lr, scale_factor=2)


@pytest.mark.parametrize("channels_last", [True, False])
def test_half_precision_leaves_the_pictures_as_they_are(
    tmp_path: Path, channels_last: bool
) -> None:
    config = TrainConfig(
        data=tmp_path,
        out=tmp_path,
        batch_size=2,
        optimizer="adam",
        accelerator="cpu",
        channels_last=channels_last,
    )
    network = Watched()
    trainer = Trainer(
        launch_fabric(config, "bf16"), config, TrainedForm(network, plain=lambda trained: trained)
    )
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    lr = np.concatenate([levels, 255 - levels]).repeat(3, axis=3)
    hr = lr.repeat(2, axis=1).repeat(2, axis=2)
    result = trainer.train_step(Batch(lr, hr), 0)
    expected = torch.from_numpy(lr).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(network.lr, expected, rtol=0, atol=0, check_stride=False)
    assert network.lr.is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    # Doubled as HR is: nothing to learn.
    assert float(result.loss) == 0


class Doubling(nn.Module):
    """Doubles pictures, each pixel becoming four; brighter by a constant."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, lr: Tensor) -> Tensor:
        return nn.functional.interpolate(lr, scale_factor=2) + self.offset


@pytest.mark.parametrize("share", [0.25, 1.0])
@pytest.mark.parametrize("brought", [False, True])
def test_a_teacher_has_its_share_of_the_loss_and_is_not_trained(
    tmp_path: Path, share: float, brought: bool
) -> None:
    config = TrainConfig(
        data=tmp_path,
        out=tmp_path,
        batch_size=1,
        optimizer="adam",
        accelerator="cpu",
        loss="mse",
        learning_rate=1e-2,
    )
    teacher = Doubling(0.3)
    network = Doubling(0.1)
    form = TrainedForm(network, plain=lambda trained: trained, teacher=teacher, teacher_share=share)
    trainer = Trainer(launch_fabric(config, "fp32"), config, form)
    lr = np.full((1, 8, 8, 3), 51, np.uint8)
    hr = np.full((1, 16, 16, 3), 102, np.uint8)
    # The student gives 0.2 + 0.1, the teacher 0.2 + 0.3 (but 0.6 where the batch brings what it
    # made), and the truth is 0.4.
    teacher_sr = np.full_like(hr, 153) if brought else None
    result = trainer.train_step(Batch(lr, hr, teacher_sr), 0)
    away = 0.3 if brought else 0.2
    assert float(result.loss) == pytest.approx(share * away**2 + (1 - share) * 0.1**2)
    assert network.offset.item() == pytest.approx(0.11)
    assert teacher.offset.item() == pytest.approx(0.3)


def test_minus_psnr_is_the_mean_over_crops_and_levels_off() -> None:
    hr = torch.zeros(2, 3, 4, 4)
    sr = hr.clone()
    sr[0], sr[1] = 0.1, 0.01  # 20 and 40 dB
    each = [float(minus_psnr(sr[i : i + 1], hr[i : i + 1])) for i in range(2)]
    assert each == pytest.approx([-20, -40 + 10 * math.log10(2)], abs=0.05)
    assert float(minus_psnr(sr, hr)) == pytest.approx(sum(each) / 2)
    assert float(minus_psnr(hr, hr)) == pytest.approx(10 * math.log10(LEAST_MSE))

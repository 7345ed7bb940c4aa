"""Traces against the networks that they come from, at sizes that were not traced."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import ExportError, QualityGateError
from swise_deploy.evaluation.pairs import Pair, pair_from_hr
from swise_deploy.pictures.files import read_rgb
from swise_deploy.pictures.folders import sample_paths
from swise_export.config import ExportConfig
from swise_export.job import export_verified
from swise_export.manifest import read_manifest
from swise_export.rewriting.folding import folded_parametrizations
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.tracing.faithful import TOLERANCE, find_faithful
from swise_export.tracing.feeding import fed_network, find_white
from swise_export.tracing.trace import export_onnx, traced_form


def loaded(module: nn.Module, name: str = "foreign") -> LoadedNetwork:
    return LoadedNetwork(module.eval(), name, 2, "test", "0" * 64)


class Nearest(nn.Module):
    """An enlargement with a little detail."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        detail: Tensor = F.pixel_shuffle(self.conv(x), 2)
        return F.interpolate(x, scale_factor=2) + 0.05 * detail


class Windows(Nearest):
    """Pads itself to multiples of 8 by a Python `if`, and counts its windows in Python."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % 8 or width % 8:
            x = F.pad(x, (0, -width % 8, 0, -height % 8), "reflect")
        batch, channels, rows, columns = x.shape
        parts = x.reshape(batch, channels, rows // 8, 8, columns // 8, 8)
        parts = parts.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, 8, 8)
        parts = parts - parts.mean(dim=(2, 3), keepdim=True) * 0.1
        number = int(parts.shape[0] / (rows * columns / 64))
        parts = parts.reshape(number, rows // 8, columns // 8, channels, 8, 8)
        whole = parts.permute(0, 3, 1, 4, 2, 5).reshape(number, channels, rows, columns)
        return super().forward(whole)[:, :, : height * 2, : width * 2]


class InPlace(Nearest):
    """Changes its input, as RCAN's authors' code does."""

    def forward(self, x: Tensor) -> Tensor:
        x *= 255
        return super().forward(x / 255)


class Branching(Nearest):
    """Sharpens wide pictures alone, which tracing decides once and for all."""

    def forward(self, x: Tensor) -> Tensor:
        sr = super().forward(x)
        return sr * 1.5 if x.shape[3] > 40 else sr


class Normalised(nn.Module):
    """Weight normalisation in both of torch's styles."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
        with pytest.warns(FutureWarning):
            self.second = nn.utils.weight_norm(nn.Conv2d(8, 12, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        detail: Tensor = F.pixel_shuffle(self.second(self.first(x)), 2)
        return F.interpolate(x, scale_factor=2) + 0.05 * detail


class Normaliser(Nearest):
    """Divides coordinates by a tensor made of the picture's sizes, as DySample does."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        across = (torch.arange(width) + 0.5) / torch.tensor([width, height], dtype=x.dtype)[0]
        return super().forward(x + 0.1 * across)


class Detached(Nearest):
    """Reads the picture's size from its data, as DITN does."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.data.shape
        return super().forward(x.reshape(batch, channels, height * width).reshape(x.data.shape))


class ZeroWindows(Windows):
    """Pads itself with zeros, as OmniSR does."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % 8 or width % 8:
            x = F.pad(x, (0, -width % 8, 0, -height % 8))
        return super().forward(x)[:, :, : height * 2, : width * 2]


def assert_equal_everywhere(module: nn.Module, path: Path) -> None:
    """The file against the module at odd and even sizes, on a fresh copy each."""
    with OnnxRunner(path) as runner:
        for height, width in ((24, 32), (32, 24), (45, 61), (9, 8), (1, 1)):
            if min(height, width) < 8 and isinstance(module, Windows):
                continue  # reflection is not defined for the network itself
            lr = np.random.default_rng(height).random((1, 3, height, width), np.float32)
            with torch.inference_mode():
                expected = module(torch.tensor(lr)).numpy()
            np.testing.assert_allclose(runner.infer(lr), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "batch"),
    [
        (Nearest, None),
        (InPlace, None),
        (Normaliser, None),
        (Detached, None),
        (Windows, 1),
        (ZeroWindows, 1),
    ],
)
def test_a_faithful_trace_equals_its_network_at_every_size(
    make: Callable[[], nn.Module], batch: int | None, tmp_path: Path
) -> None:
    module = make()
    found = find_faithful(loaded(module))
    assert found.batch == batch
    assert found.max_abs <= TOLERANCE
    path = tmp_path / "file.onnx"
    export_onnx(found.network, path, batch=found.batch)
    assert_equal_everywhere(module.eval(), path)


class Options(Nearest):
    """Options behind the picture, as `forward(x, *, features=False)` has them."""

    def forward(self, x: Tensor, factor: float = 1.0, *, features: bool = False) -> Tensor:
        assert not features
        return factor * super().forward(x)


class SpectralNorm(Nearest):
    def __init__(self) -> None:
        super().__init__()
        self.mix = spectral_norm(nn.Conv2d(3, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.mix(x)
        return super().forward(mixed)


class Bins(Nearest):
    """Averages over 3x4 parts of the picture, which overlap where its sides are no multiples."""

    def forward(self, x: Tensor) -> Tensor:
        coarse = F.adaptive_avg_pool2d(x, (3, 4))
        return super().forward(x + F.interpolate(coarse, size=x.shape[2:], mode="nearest"))


@pytest.mark.parametrize("make", [Options, SpectralNorm, Bins])
def test_a_network_is_exported_whole(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    module = make().eval()
    export_verified(loaded(module), tmp_path / "file.onnx", ExportConfig())
    with OnnxRunner(tmp_path / "file.onnx") as runner:
        for height, width in ((24, 32), (45, 61)):
            lr = np.random.default_rng(height).random((1, 3, height, width), np.float32)
            with torch.inference_mode():
                expected = module(torch.tensor(lr)).numpy()
            np.testing.assert_allclose(runner.infer(lr), expected, atol=1e-5)


class MaxBins(Nearest):
    def forward(self, x: Tensor) -> Tensor:
        coarse = F.adaptive_max_pool2d(x, 4)
        return super().forward(x + F.interpolate(coarse, size=x.shape[2:], mode="nearest"))


def test_a_network_that_is_traced_for_one_size_alone_is_refused_with_that_way_out() -> None:
    with pytest.raises(ExportError, match=r"adaptive_max_pool2d.*--size WxH"):
        find_faithful(loaded(MaxBins()))
    assert find_faithful(loaded(MaxBins()), size=(48, 32)).max_abs <= TOLERANCE


def test_a_network_that_decides_by_its_size_is_refused_with_line_and_way_out() -> None:
    with pytest.raises(QualityGateError, match=r"test_faithful\.py line \d+.*--size") as refused:
        find_faithful(loaded(Branching()))
    assert "Nothing was kept" in str(refused.value)


class Faint(Nearest):
    """Pads itself to multiples of 8 by a Python `if`, which hardly shows at the border."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % 8 or width % 8:
            x = F.pad(x, (0, -width % 8, 0, -height % 8), "reflect")
        sr = F.interpolate(x + 2e-3 * F.avg_pool2d(x, 3, 1, 1), scale_factor=2)
        return sr[:, :, : height * 2, : width * 2]


def test_a_way_that_is_exact_comes_before_one_that_is_nearly_so() -> None:
    found = find_faithful(loaded(Faint()))
    assert found.max_abs < 1e-6


class Noisy(Nearest):
    """Adds noise, as AuraSR does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.1 * torch.rand_like(x[:, :, :1, :1])


@pytest.mark.parametrize("size", [None, (32, 24)])
def test_a_network_that_gives_another_picture_each_time_is_refused_as_such(
    size: tuple[int, int] | None,
) -> None:
    with pytest.raises(QualityGateError, match="random") as refused:
        find_faithful(loaded(Noisy()), size=size)
    assert "--size" not in str(refused.value)


def test_one_size_of_such_a_network_is_exported(tmp_path: Path) -> None:
    module = Branching().eval()
    found = find_faithful(loaded(module), size=(48, 24))
    export_onnx(found.network, tmp_path / "wide.onnx", size=(48, 24))
    lr = np.random.default_rng(0).random((1, 3, 24, 48), np.float32)
    with OnnxRunner(tmp_path / "wide.onnx") as runner, torch.inference_mode():
        np.testing.assert_allclose(runner.infer(lr), module(torch.tensor(lr)).numpy(), atol=1e-5)


def test_folded_weights_compute_the_same_and_leave_the_network_as_it_was() -> None:
    module = Normalised().eval()
    x = torch.rand(1, 3, 9, 7)
    with torch.inference_mode():
        expected = module(x)
        folded = folded_parametrizations(module)
        torch.testing.assert_close(folded(x), expected)
        torch.testing.assert_close(module(x), expected)
    assert isinstance(folded.get_submodule("first").weight, nn.Parameter)
    assert isinstance(folded.get_submodule("second").weight, nn.Parameter)
    convolutions = [n for n in traced_form(loaded(module)).graph.node if n.op_type == "Conv"]
    stored = {t.name for t in traced_form(loaded(module)).graph.initializer}
    assert len(convolutions) == 2
    assert all(node.input[1] in stored for node in convolutions)


class Wide(Nearest):
    """Works on 0..255 and subtracts a mean, as EDSR's authors' code does."""

    def forward(self, x: Tensor) -> Tensor:
        shifted = torch.relu(x - 30)
        return super().forward(shifted) + 30


class Swapped(nn.Module):
    """Takes BGR: it enlarges blue by a factor and the others plainly."""

    def forward(self, x: Tensor) -> Tensor:
        gains = torch.tensor([0.5, 1.0, 1.0]).view(1, 3, 1, 1)
        return F.interpolate(x * gains, scale_factor=2)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return [pair_from_hr(path.name, read_rgb(path)[:128, :128], 2) for path in sample_paths()[:2]]


def test_the_range_of_a_network_is_found_on_ground_truth(pairs: list[Pair]) -> None:
    white, line = find_white(loaded(Wide()), pairs)
    assert white == 255
    assert "0 to 255" in line
    assert find_white(loaded(Nearest()), pairs) == (1, "")


def test_the_conversion_is_part_of_the_file(tmp_path: Path) -> None:
    module = Wide().eval()
    network = fed_network(loaded(module), white=255)
    export_onnx(network, tmp_path / "wide.onnx")
    lr = np.random.default_rng(0).random((1, 3, 8, 9), np.float32)
    with OnnxRunner(tmp_path / "wide.onnx") as runner, torch.inference_mode():
        expected = module(torch.tensor(lr * 255)).numpy() / 255
        np.testing.assert_allclose(runner.infer(lr), expected, atol=1e-5)


def test_a_network_of_blue_green_red_gets_its_channels_in_that_order(tmp_path: Path) -> None:
    export_onnx(fed_network(loaded(Swapped()), bgr=True), tmp_path / "bgr.onnx")
    lr = np.full((1, 3, 4, 4), 0.8, np.float32)
    with OnnxRunner(tmp_path / "bgr.onnx") as runner:
        sr = runner.infer(lr)
    np.testing.assert_allclose(sr[0, :, 0, 0], [0.8, 0.8, 0.4], atol=1e-6)


def test_quality_beside_bicubic_is_in_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    report = export_verified(
        loaded(Nearest()), path, ExportConfig(threads=1), images=sample_paths()[:1]
    )
    quality = read_manifest(path).quality
    assert quality is not None
    assert quality == report.manifest.quality
    assert quality.is_below_bicubic
    assert quality.psnr_y_db == pytest.approx(quality.network_psnr_y_db, abs=0.01)


def test_an_artefact_of_other_weights_is_not_replaced_unasked(tmp_path: Path) -> None:
    path, network = tmp_path / "file.onnx", loaded(Nearest())
    config, images = ExportConfig(threads=1), sample_paths()[:1]
    export_verified(network, path, config, images=images)
    before = path.read_bytes()
    export_verified(network, path, config, images=images)  # of the same: no question
    other = dataclasses.replace(network, weights_sha256="1" * 64)
    with pytest.raises(Exception, match=r"file\.onnx is there already.*weights.*--overwrite"):
        export_verified(other, path, config, images=images)
    assert path.read_bytes() == before
    export_verified(other, path, dataclasses.replace(config, overwrite=True), images=images)
    assert read_manifest(path).weights_sha256 == "1" * 64


class Pooling(Nearest):
    """Pools to a share of the picture, whose size ONNX's adaptive pooling does not take."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        small = F.adaptive_max_pool2d(x, (height // 4, width // 4))
        large = F.interpolate(small, size=(height, width), mode="nearest")
        return super().forward(x + 0.1 * large)


def test_adaptive_pooling_to_a_share_of_the_picture_is_exported_for_one_size(
    tmp_path: Path,
) -> None:
    module = Pooling().eval()
    found = find_faithful(loaded(module), size=(48, 24))
    export_onnx(found.network, tmp_path / "pool.onnx", size=(48, 24))
    lr = np.random.default_rng(0).random((1, 3, 24, 48), np.float32)
    with OnnxRunner(tmp_path / "pool.onnx") as runner, torch.inference_mode():
        np.testing.assert_allclose(runner.infer(lr), module(torch.tensor(lr)).numpy(), atol=1e-5)
    with pytest.raises(QualityGateError, match="--size"):
        find_faithful(loaded(module))


def test_python_s_numbers_do_not_become_float64_in_a_file_of_one_size() -> None:
    class Grid(Nearest):
        def forward(self, x: Tensor) -> Tensor:
            rows = torch.arange(x.shape[2]) + 0.5
            return super().forward(x + 0.001 * rows[:, None])

    model = traced_form(loaded(Grid()), size=(16, 8))
    assert all(t.data_type != onnx.TensorProto.DOUBLE for t in model.graph.initializer)
    find_faithful(loaded(Grid()), size=(16, 8))

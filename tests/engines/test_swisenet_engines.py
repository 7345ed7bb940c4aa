"""Engines for SwiseNet as swise-export writes it, with NVIDIA's parser and builder; no GPU."""

import pytest

from swise_engines.admission import admit_file
from swise_engines.building import build_engine
from swise_engines.cuda import GpuAtHand
from swise_engines.planning import BuildOptions
from swise_engines.profiles import profile_from_sizes
from swise_engines.targets import find_target

pytestmark = pytest.mark.usefixtures("rtx")

SCALES = (2, 3, 4)
TARGETS = ("sm86", "sm89", "sm120")


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """swise-export's fp16 files, made once for each scale."""
    torch = pytest.importorskip("torch")
    from swise_deploy.models.checkpoint import LoadedNetwork
    from swise_deploy.models.registry import network_module
    from swise_export.exporting import export_onnx

    folder, files = tmp_path_factory.mktemp("swisenet"), {}

    def export(scale):
        path = folder / f"swisenet_x{scale}_fp16.onnx"
        if scale not in files:
            torch.manual_seed(0)
            network = network_module("swisenet").build(scale).eval()
            loaded = LoadedNetwork(network, "swisenet", scale, "fresh", "0" * 64)
            files[scale] = export_onnx(loaded, path, precision="fp16")
        return path

    return export


@pytest.fixture
def build(tmp_path, report):
    def run(path, target, *profiles):
        return build_engine(
            path,
            tmp_path / "swisenet.engine",
            BuildOptions(find_target(target), profiles=profiles),
            gpu=GpuAtHand(None, "not needed"),
            cache=None,
            report=report,
            say=str,
        )

    return run


def check(built, scale, target):
    manifest = built.manifest
    assert admit_file(built.path) == manifest
    assert manifest.sms == (find_target(target).sm,)
    assert (manifest.model, manifest.scale) == ("swisenet", scale)
    assert manifest.precision_asked == "fp16"
    # What stays in fp32 are normalisations, averages and the bicubic path of the 3-channel picture.
    assert manifest.precision_found.share("fp16") > 0.99
    assert manifest.precision_found.unattributed_share == 0


@pytest.mark.parametrize(("scale", "target"), list(zip(SCALES, TARGETS, strict=True)))
def test_fp16_engines_of_any_size_build(exported, build, scale, target):
    check(build(exported(scale), target), scale, target)


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("target", TARGETS)
def test_every_scale_builds_for_every_card(exported, build, scale, target):
    check(build(exported(scale), target), scale, target)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_8_bit_pictures_on_both_sides_build(build, tmp_path, precision):
    torch = pytest.importorskip("torch")
    from swise_deploy.models.checkpoint import LoadedNetwork
    from swise_export.exporting import export_onnx

    layers = torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.PixelShuffle(2)
    network = LoadedNetwork(torch.nn.Sequential(*layers), "small", 2, "fresh", "0" * 64)
    path = tmp_path / "small.onnx"
    export_onnx(network, path, precision=precision, io="uint8", form="plain")
    manifest = build(path, "sm86", profile_from_sizes([(64, 48)])).manifest
    assert manifest.io == "uint8"
    assert manifest.precision_found.share(precision) == 1

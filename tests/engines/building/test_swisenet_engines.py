"""Engines for SwiseNet as swise-export writes it, with NVIDIA's parser and builder; no GPU."""

import pytest

from swise_engines.building.build import build_engine
from swise_engines.building.options import BuildOptions
from swise_engines.cuda.boundary import GpuAtHand
from swise_engines.running.checks import check_file
from swise_engines.targets.catalogue import find_target
from swise_engines.tensorrt.profiles import profile_from_sizes

pytestmark = pytest.mark.usefixtures("rtx")

SCALES = (2, 3, 4)
TARGETS = ("sm86", "sm89", "sm120")


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """swise-export's files, made once for each scale and precision."""
    torch = pytest.importorskip("torch")
    from swise_deploy.checkpoints.load import LoadedNetwork
    from swise_deploy.networks.registry import network_module
    from swise_export.tracing.trace import export_onnx

    folder = tmp_path_factory.mktemp("swisenet")

    def export(scale, precision="fp16"):
        path = folder / f"swisenet_x{scale}_{precision}.onnx"
        if not path.exists():
            torch.manual_seed(0)
            network = network_module("swisenet").build(scale).eval()
            for parameter in network.parameters():  # fresh ones hold zeros, which are stored once
                parameter.data += 0.1 * torch.randn_like(parameter)
            loaded = LoadedNetwork(network, "swisenet", scale, "fresh", "0" * 64)
            recipe = everything_in_int8(loaded) if precision == "int8" else None
            export_onnx(loaded, path, precision=precision, recipe=recipe)
        return path

    return export


def everything_in_int8(network):
    """A placement that no search found, with ranges of no picture: its types are the point."""
    from swise_export.precision.plan import PlannedLayer, PrecisionPlan
    from swise_export.precision.quantised.qdq import find_layers
    from swise_export.precision.recipe import QuantisationRecipe, calibrate_for_plan
    from swise_export.tracing.trace import traced_form

    model = traced_form(network)
    layers, mult_adds = find_layers(model)
    plan = PrecisionPlan(
        model=network.name,
        scale=network.scale,
        form="deploy",
        weights_sha256=network.weights_sha256,
        rest="fp16",
        layers=tuple(
            PlannedLayer(layer.name, "int8", 4.0, layer.mult_adds, 0.0, 0.0) for layer in layers
        ),
        mult_adds=mult_adds,
        method="minmax",
        rounding="nearest",
        num_pictures=0,
        pictures_sha256="0" * 64,
        max_drift_db=0.05,
        held_out_drift_db=0.0,
    )
    weights = calibrate_for_plan(model, plan, [], scale=network.scale, cache=None)
    return QuantisationRecipe(plan, weights)


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
            notify=print,
        )

    return run


# Of the Mult-Adds: what stays in fp32 are normalisations, averages and the bicubic path of the
# 3-channel picture; what INT8 leaves to fp16 are products of two tensors and the smallest layers.
LEAST_SHARE = {"fp16": 0.99, "int8": 0.95}


def check(built, scale, target, precision="fp16"):
    manifest = built.manifest
    assert check_file(built.path) == manifest
    assert manifest.sms == (find_target(target).sm,)
    assert (manifest.model, manifest.scale) == ("swisenet", scale)
    assert manifest.precision_asked == precision
    assert manifest.precision_found.share(precision) > LEAST_SHARE[precision]
    assert manifest.precision_found.unattributed_share == 0


@pytest.mark.parametrize(("scale", "target"), list(zip(SCALES, TARGETS, strict=True)))
def test_fp16_engines_of_any_size_build(exported, build, scale, target):
    check(build(exported(scale), target), scale, target)


def test_an_int8_engine_of_any_size_builds(exported, build):
    check(build(exported(2, "int8"), "sm89"), 2, "sm89", "int8")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("target", TARGETS)
def test_every_scale_builds_for_every_card(exported, build, scale, target, precision):
    check(build(exported(scale, precision), target), scale, target, precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_8_bit_pictures_on_both_sides_build(build, tmp_path, precision):
    torch = pytest.importorskip("torch")
    from swise_deploy.checkpoints.load import LoadedNetwork
    from swise_export.tracing.trace import export_onnx

    layers = torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.PixelShuffle(2)
    network = LoadedNetwork(torch.nn.Sequential(*layers), "small", 2, "fresh", "0" * 64)
    path = tmp_path / "small.onnx"
    export_onnx(network, path, precision=precision, io="uint8", form="plain")
    manifest = build(path, "sm86", profile_from_sizes([(64, 48)])).manifest
    assert manifest.io == "uint8"
    assert manifest.precision_found.share(precision) == 1

"""Every network of the table, by the same way: ONNX of any size, half precision, a real engine."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.networks import drcn, fmen, lbnet, swinir, vdsr
from swise_deploy.networks.parts.luma import LumaNetwork
from swise_deploy.networks.registry import NETWORKS, build_network
from swise_engines.building.build import build_engine
from swise_engines.building.options import BuildOptions
from swise_engines.cuda.boundary import GpuAtHand
from swise_engines.targets.catalogue import find_target
from swise_engines.tensorrt.profiles import Extent, Profile
from swise_export.rewriting.deploy_form import deploy_form
from swise_export.tracing.trace import export_onnx, traced

# The same modules with fewer layers, where the full network takes long to trace.
SHORT = {
    "lbnet": lambda up: lbnet.LBNet(2, lbnet.LbnetSize(16, 4, halved=True), upsampler=up),
    "fmen": lambda up: fmen.FMEN(2, fmen.FmenSize(8, (4, 4), (2, 1)), upsampler=up),
    "swinir_light": lambda up: swinir.SwinIR(
        2, swinir.SwinirSize(12, (2, 2), 3, 8, 2.0), upsampler=up
    ),
    "drcn": lambda _: LumaNetwork(drcn.DRCN(channels=8, recursions=3), 2, interpolated=True),
    "vdsr": lambda _: LumaNetwork(vdsr.VDSR(5, 8), 2, interpolated=True),
}
RIVALS = [n for n in NETWORKS if not n.startswith("swisenet")]
NAMES = [n for n in RIVALS if n not in {"lbnet_t", "fmen_s"}]
KINDS = [(name, upsampler) for name in NAMES for upsampler in NETWORKS[name].upsamplers]
CARDS = ("sm86", "sm89", "sm120")
SIZES = [(1, 1, 1), (2, 3, 5), (1, 17, 23), (1, 32, 24)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a network once for each precision; gives it and its file."""
    folder = tmp_path_factory.mktemp("networks")

    def export(name, upsampler="default", precision="fp32", *, short=True):
        torch.manual_seed(0)
        make = SHORT.get(name) if short else None
        module = make(upsampler) if make else build_network(name, 2, upsampler=upsampler)
        path = folder / f"{name}_{upsampler}_{precision}_{short}.onnx"
        if not path.exists():
            network = LoadedNetwork(module.eval(), name, 2, "fresh weights", "0" * 64)
            export_onnx(network, path, precision=precision)
        return module.eval(), path

    return export


def run(path, lr):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"lr": lr})[0]


@pytest.mark.parametrize(("name", "upsampler"), KINDS)
def test_onnx_gives_what_torch_gives_at_any_size(exported, name, upsampler):
    module, path = exported(name, upsampler)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for batch, height, width in SIZES:
        lr = rng.random((batch, 3, height, width), np.float32)
        with torch.inference_mode():
            expected = module(torch.from_numpy(lr)).numpy()
        sr = session.run(None, {"lr": lr})[0]
        assert sr.shape == (batch, 3, 2 * height, 2 * width)
        np.testing.assert_allclose(sr, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_close(exported, name):
    module, path = exported(name, precision="fp16")
    casts = [node for node in onnx.load(path).graph.node if node.op_type == "Cast"]
    assert onnx.TensorProto.FLOAT16 in [cast.attribute[0].i for cast in casts]
    lr = np.random.default_rng(0).random((1, 3, 17, 23), np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(lr)).numpy()
    # A half has 11 bits, 5e-4 of the largest value, and errors add up over layers.
    largest = np.abs(expected).max()
    np.testing.assert_allclose(run(path, lr), expected, atol=1e-2 * largest, rtol=0)


def build(path, folder, target, *, level, profiles=()):
    pytest.importorskip("tensorrt_rtx", reason="building engines for RTX cards needs tensorrt-rtx")
    built = build_engine(
        path,
        folder / f"{target}.engine",
        BuildOptions(find_target(target), profiles=profiles, optimization_level=level),
        gpu=GpuAtHand(None, "this test runs without one"),
        cache=None,
        report=lambda _phase, _share: None,
        notify=lambda _text: None,
    )
    assert built.path.stat().st_size > 0
    assert built.manifest.sms == (find_target(target).sm,)
    return built.manifest


# LBNet has as many layers in its short form: its engine takes 10 s.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "lbnet" else n for n in NAMES]
)
def test_a_real_engine_is_built(exported, tmp_path, name):
    _, path = exported(name)
    sizes = Profile(Extent(1, 8, 8), Extent(1, 32, 24), Extent(1, 48, 40))
    for target in CARDS if name == "fsrcnn" else CARDS[:1]:
        build(path, tmp_path, target, level=0, profiles=(sizes,))


@pytest.mark.slow
@pytest.mark.parametrize("target", CARDS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", RIVALS)
def test_every_network_builds_at_full_depth_for_every_card(
    exported, tmp_path, name, precision, target
):
    _, path = exported(name, precision=precision, short=False)
    manifest = build(path, tmp_path, target, level=None)
    assert manifest.precision_asked == precision
    assert manifest.precision_found.share(precision) > 0.99


@pytest.mark.parametrize(("name", "most"), [("lbnet", 1250), ("swinir_light", 1900)])
def test_the_transformers_graphs_stay_small(name, most):
    network = LoadedNetwork(build_network(name, 2).eval(), name, 2, "fresh weights", "0" * 64)
    nodes = traced(deploy_form(network.module), network).graph.node
    # One group or window at a time, with its sizes worked out anew, it was 2,500.
    assert sum(node.op_type != "Constant" for node in nodes) < most

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import load_file, save_file

from swise_deploy.checkpoints.load import LoadedNetwork, open_network
from swise_deploy.errors import InputError
from swise_deploy.networks.registry import network_module
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.loop import train
from swise_deploy.training.run.run_files import read_log
from swise_deploy.training.start.trained_form import PLAN_NAME
from swise_deploy.training.step.averaging import WeightAverage
from swise_export.precision.plan import PlannedLayer, PrecisionPlan, read_plan, write_plan
from swise_export.precision.quantised.qdq import (
    find_layers,
    rounded_to_nearest,
)
from swise_export.precision.quantised.unsigned import find_unsigned
from swise_export.precision.recipe import QuantisationRecipe, calibrate_for_plan, quantised_model
from swise_export.rewriting.deploy_form import deploy_form
from swise_export.rewriting.plain_form import network_from_deploy_form
from swise_export.tracing.trace import traced
from swise_export.training import cli as cli_train
from swise_export.training.qat import form_from_plan, quantised_form
from tests.export.conftest import loaded_swisenet

_MODELS: dict[int, tuple[LoadedNetwork, onnx.ModelProto]] = {}


def deployed_model(network: LoadedNetwork):
    """Traced once for each network: tracing is what takes time here."""
    if id(network) not in _MODELS:
        _MODELS[id(network)] = (network, traced(deploy_form(network.module), network))
    return _MODELS[id(network)][1]


@pytest.fixture(scope="module")
def swisenet():
    return loaded_swisenet(2)


def plan_for(
    network: LoadedNetwork,
    *,
    keep=None,
    slack: float = 1.0,
    equalise: bool = False,
    unsigned: bool = False,
):
    """A plan with some layers in INT8; ranges are the largest inputs on noise, times `slack`.

    With `equalise` every second channel of every input is divided by 1/2; with `unsigned` every
    input that is never negative is unsigned.

    A test of arithmetic may run on noise: nothing is judged by its quality.
    """
    model = deployed_model(network)
    layers, mult_adds = find_layers(model)
    largest = largest_inputs(model, layers)
    keep = {layer.weight for layer in layers} if keep is None else keep
    positive = find_unsigned(model, layers) if unsigned else ()
    return PrecisionPlan(
        model=network.name,
        scale=network.scale,
        form="deploy",
        weights_sha256=network.weights_sha256,
        rest="fp32",
        layers=tuple(
            PlannedLayer(
                layer.name,
                "int8" if layer.weight in keep else "fp32",
                largest[layer.name] * slack,
                layer.mult_adds,
                0.0,
                0.0,
                factors_for(model, layer) if equalise else (),
                layer.name in positive,
            )
            for layer in layers
        ),
        mult_adds=mult_adds,
        method="minmax",
        rounding="nearest",
        num_pictures=1,
        pictures_sha256="0" * 64,
        max_drift_db=1.0,
        held_out_drift_db=0.0,
    )


def factors_for(model, layer):
    dims = stored_weights(model)[layer.weight].shape
    group = next(
        (a.i for n in model.graph.node if n.name == layer.name for a in n.attribute
         if a.name == "group"), 1)  # fmt: skip
    num_channels = dims[0] if layer.op_type == "ConvTranspose" else dims[1] * group
    return tuple(0.5 if i % 2 else 1.0 for i in range(num_channels))


def largest_inputs(model, layers):
    watched = type(model).FromString(model.SerializeToString())
    names = list(dict.fromkeys(layer.input for layer in layers if layer.input != "lr"))
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    found = session(watched).run(names, {"lr": picture()})
    values = {**dict(zip(names, found, strict=True)), "lr": picture()}
    return {layer.name: float(np.abs(values[layer.input]).max()) for layer in layers}


def session(model):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # No INT8 kernels: on x86 without VNNI they saturate.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def picture():
    levels = np.random.default_rng(0).integers(0, 256, (1, 3, 15, 18))
    return (levels / 255).astype(np.float32)


def exported(network: LoadedNetwork, plan: PrecisionPlan):
    """The plan's INT8 graph of a network, as `swise-export --int8` writes it."""
    model = deployed_model(network)
    weights = calibrate_for_plan(model, plan, [], scale=network.scale, cache=None)
    return quantised_model(model, QuantisationRecipe(plan, weights), []).model


def stored_weights(model):
    return {t.name: np.asarray(numpy_helper.to_array(t)) for t in model.graph.initializer}


def upscaled(module):
    with torch.no_grad():
        return module.eval()(torch.from_numpy(picture())).numpy()


def distance_db(a, b):
    return -10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2))


@pytest.mark.parametrize(
    "one",
    ["head", "upsampler.reduce.3"],
)
def test_one_rounded_layer_computes_what_the_exported_graph_computes(swisenet, one):
    plan = plan_for(swisenet, keep={f"{one}.weight"})
    assert len(plan.quantised_layers) == 1
    ours = upscaled(quantised_form(swisenet.module, plan, name="swisenet"))
    (graph,) = session(exported(swisenet, plan)).run(None, {"lr": picture()})
    (full,) = session(deployed_model(swisenet)).run(None, {"lr": picture()})
    # Nothing behind the layer is rounded: what is left are sums in another order.
    assert np.abs(ours - graph).max() < 1e-5
    assert np.abs(graph - full).max() > 1e-4


def test_all_rounded_layers_together_stay_nearer_to_the_graph_than_to_fp32(swisenet):
    plan = plan_for(swisenet)
    ours = upscaled(quantised_form(swisenet.module, plan, name="swisenet"))
    (graph,) = session(exported(swisenet, plan)).run(None, {"lr": picture()})
    full = upscaled(deploy_form(swisenet.module))
    # A value on the border of two levels falls either way, and so does what follows from it.
    assert distance_db(ours, graph) > distance_db(graph, full) + 6
    assert distance_db(ours, full) == pytest.approx(distance_db(graph, full), abs=0.5)


@pytest.mark.parametrize("equalise", [False, True])
def test_transposed_convolutions_are_rounded_along_their_own_axis(equalise):
    torch.manual_seed(0)
    network = LoadedNetwork(network_module("fsrcnn").build(3).eval(), "fsrcnn", 3, "", "0" * 64)
    plan = plan_for(network, slack=2.0, equalise=equalise)
    assert "ConvTranspose" in {layer.op_type for layer in find_layers(deployed_model(network))[0]}
    ours = upscaled(quantised_form(network.module, plan, name="fsrcnn"))
    (graph,) = session(exported(network, plan)).run(None, {"lr": picture()})
    assert distance_db(ours, graph) > 60


def test_unsigned_inputs_are_rounded_as_in_the_graph():
    torch.manual_seed(0)
    network = LoadedNetwork(network_module("vdsr").build(2).eval(), "vdsr", 2, "", "0" * 64)
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.mul_(2.5)  # torch's own start leaves nothing of a picture after 18 ReLUs
    third = find_layers(deployed_model(network))[0][2].weight
    signed, plan = (plan_for(network, keep={third}, unsigned=by) for by in (False, True))
    assert [layer.unsigned for layer in plan.quantised_layers] == [True]
    ours = upscaled(quantised_form(network.module, plan, name="vdsr"))
    (graph,) = session(exported(network, plan)).run(None, {"lr": picture()})
    (other,) = session(exported(network, signed)).run(None, {"lr": picture()})
    # A value on the border of two levels falls either way.
    assert np.quantile(np.abs(ours - graph), 0.9) < np.median(np.abs(other - graph)) / 100


def test_gradients_reach_all_that_is_trained_and_nothing_that_is_fixed(swisenet):
    form = quantised_form(swisenet.module, plan_for(swisenet), name="swisenet").train()
    form(torch.from_numpy(picture())).square().mean().backward()
    without = {n for n, p in form.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == {"upsampler.shift_add.parametrizations.weight.original"}


def test_what_is_saved_is_on_its_levels_and_exports_to_what_was_trained(swisenet):
    plan = plan_for(swisenet)
    form = quantised_form(swisenet.module, plan, name="swisenet")
    with torch.no_grad():
        for parameter in form.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    trained = upscaled(form)

    plain = network_from_deploy_form(swisenet.module, WeightAverage(form, 0.0).network())
    saved = dataclasses.replace(swisenet, module=plain)

    model = deployed_model(saved)
    weights = stored_weights(model)
    for layer in find_layers(model)[0]:
        if layer.weight.endswith("kernel") or "shift_add" in layer.weight:
            continue  # interpolation, which is not saved
        nearest = rounded_to_nearest(weights[layer.weight], layer.channel_axis)
        assert np.array_equal(nearest.dequantised(layer.channel_axis), weights[layer.weight])
    (graph,) = session(exported(saved, plan)).run(None, {"lr": picture()})
    full = upscaled(plain)
    assert distance_db(trained, graph) > distance_db(graph, full) + 6


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(5):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
        coarse.resize((44, 40), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def run(pictures, tmp_path):
    """An FSRCNN x2 with random weights, its plan, and a run that recovers it."""
    torch.manual_seed(0)
    module = network_module("fsrcnn").build(2)
    weights, plan = tmp_path / "fsrcnn_x2.safetensors", tmp_path / "plan.json"
    save_file(module.state_dict(), weights)
    write_plan(plan, plan_for(open_network("fsrcnn", scale=2, weights=weights), slack=8.0))
    return TrainConfig(
        data=pictures,
        out=tmp_path / "run",
        cache=tmp_path / "cache",
        model="fsrcnn",
        init=weights,
        qat=plan,
        steps=40,
        batch_size=4,
        patch_size=8,
        learning_rate=3e-3,
        optimizer="adam",
        ema_decay=0.0,
        holdout=1,
        accelerator="cpu",
        workers=0,
        log_every=1,
        save_every=20,
        val_every=20,
        tensorboard=False,
    )


def test_training_brings_the_coarse_network_nearer_to_the_fp32_one(run):
    result = train(run, make_form=form_from_plan)
    assert result is not None
    losses = [r["loss"] for r in read_log(run.out) if r["kind"] == "train"]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    # A checkpoint like any other, under the network's own names, and a plan that belongs to it.
    network = open_network(None, scale=None, weights=result.weights)
    plan = read_plan(run.out / PLAN_NAME)
    assert (network.name, plan.weights_sha256) == ("fsrcnn", network.weights_sha256)
    assert plan.rounding == "nearest"
    assert [layer.range for layer in plan.layers] == [
        layer.range for layer in read_plan(run.qat).layers
    ]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(run, tmp_path):
    whole = train(dataclasses.replace(run, steps=6), make_form=form_from_plan)
    parts = dataclasses.replace(run, steps=6, out=tmp_path / "parts", save_every=3)
    train(parts, make_form=form_from_plan, stop=StopAfter(3))
    rest = train(parts, make_form=form_from_plan, resume=True)
    assert whole is not None
    assert rest is not None
    expected = load_file(whole.weights)
    assert all(torch.equal(t, expected[n]) for n, t in load_file(rest.weights).items())


class StopAfter:
    def __init__(self, steps):
        self.left = steps

    def __call__(self):
        self.left -= 1
        return self.left == 0


def test_the_command_trains_in_int8_and_says_how_much_of_the_network(run, capsys):
    arguments = ["--data", run.data, "--out", run.out, "--cache", run.cache, "--model", "fsrcnn"]
    arguments += ["--init", run.init, "--qat", run.qat, "--steps", 2, "--batch-size", 2]
    arguments += ["--patch-size", 8, "--holdout", 1, "--optimizer", "adam", "--no-tensorboard"]
    assert cli_train.main([str(a) for a in arguments]) == 0
    out, err = capsys.readouterr()
    assert out.strip().endswith("fsrcnn_x2.safetensors")
    assert "8 layers in INT8, 97.5% of the Mult-Adds" in err
    assert "dB of its teacher" in err
    card = (run.out / "README.md").read_text()
    assert (
        f"swise-export --weights fsrcnn_x2.safetensors --int8 --precision-plan {PLAN_NAME}" in card
    )


def test_training_for_int8_without_the_exporter_is_refused(run):
    with pytest.raises(InputError, match="needs swise_export"):
        train(run)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"precision": "bf16"}, "expected with qat, fp32"),
        ({"weight_norm": ("*",)}, "weight_norm"),
        ({"init": None}, "the weights of the plan"),
        ({"teacher": (Path("other.safetensors"),)}, "expected with qat, none: init teaches"),
    ],
)
def test_settings_that_do_not_go_with_int8_are_refused(run, change, match):
    with pytest.raises(InputError, match=match):
        dataclasses.replace(run, **change)


def test_a_plan_for_another_network_is_refused(run, swisenet):
    write_plan(run.qat, plan_for(swisenet))
    with pytest.raises(InputError, match="plan for swisenet x2; the run trains fsrcnn x2"):
        train(run, make_form=form_from_plan)


class Skipping(torch.nn.Module):
    """A convolution and a skip around it that reads the same tensor; x2."""

    def __init__(self, groups=1):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.conv = torch.nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        self.last = torch.nn.Conv2d(8, 12, 1)

    def forward(self, lr):
        x = self.first(lr)
        return torch.nn.functional.pixel_shuffle(self.last(x + self.conv(x)), 2)


@pytest.mark.parametrize("rounded", [{"conv.weight"}, {"first.weight", "conv.weight"}])
@pytest.mark.parametrize(("groups", "equalise"), [(1, False), (1, True), (4, True)])
def test_a_skip_around_a_rounded_layer_keeps_its_precision_in_both(groups, equalise, rounded):
    torch.manual_seed(0)
    network = LoadedNetwork(Skipping(groups).eval(), "skipping", 2, "", "0" * 64)
    plan = plan_for(network, keep=rounded, equalise=equalise)
    ours = upscaled(quantised_form(network.module, plan, name="skipping"))
    (graph,) = session(exported(network, plan)).run(None, {"lr": picture()})
    assert np.abs(ours - graph).max() < 1e-5


class Recursive(torch.nn.Module):
    """One convolution, twice; x2."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.last = torch.nn.Conv2d(3, 12, 1)

    def forward(self, lr):
        return torch.nn.functional.pixel_shuffle(self.last(self.conv(self.conv(lr).relu())), 2)


def test_layers_that_share_weights_are_refused():
    network = LoadedNetwork(Recursive().eval(), "recursive", 2, "", "0" * 64)
    with pytest.raises(InputError, match="shares its weights with another"):
        quantised_form(network.module, plan_for(network), name="recursive")

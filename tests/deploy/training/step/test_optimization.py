import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.networks.swisenet import SwiseNet
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.step.averaging import WeightAverage
from swise_deploy.training.step.optimization import learning_rate_at, make_optimizer
from swise_deploy.training.step.precision import resolve_precision
from swise_deploy.training.step.weight_norm import fold_weights, normalise_weights

CAPABILITY = torch.backends.cpu.get_cpu_capability()


def config(**settings):
    return TrainConfig(data=Path("pictures"), out=Path("run"), **settings)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 1.0), (149, 1.0), (150, 0.5), (299, 0.5), (300, 0.25), (450, 0.125)]
)
def test_step_schedule_halves(step, rate):
    settings = config(schedule="step", halve_every=150, learning_rate=1.0)
    assert learning_rate_at(settings, step) == rate


def test_warm_up_is_linear_then_half_a_cosine_ends_at_the_final_rate():
    settings = config(
        schedule="cosine",
        warmup_steps=4,
        steps=15,
        learning_rate=1.0,
        final_learning_rate=0.2,
    )
    rates = [learning_rate_at(settings, step) for step in range(15)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[9] == pytest.approx(0.6)  # half way: the mean of both ends
    assert rates[14] == pytest.approx(0.2)


def test_constant_schedule_is_constant():
    assert learning_rate_at(config(schedule="constant", learning_rate=0.3), 9_999) == 0.3


def quadratic_step(name):
    layer = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0]]))
    layer.weight.grad = torch.tensor([[0.0, 0.0, 1.0, -2.0], [3.0, 1.0, 0.0, 0.0]])
    before = layer.weight.detach().clone()
    make_optimizer(config(optimizer=name, learning_rate=0.1), layer).step()
    return before, layer.weight.detach()


def test_adamp_takes_no_step_along_the_weights_and_adam_does_not_care():
    # Heo et al., "AdamP", 2021, equation 12: where weights and gradient are orthogonal, as in a
    # scale-invariant layer, the radial part of the update is projected out.
    before, after = quadratic_step("adamp")
    assert not torch.equal(before, after)
    torch.testing.assert_close(
        ((after - before) * before).sum(1), torch.zeros(2), atol=1e-6, rtol=0
    )
    # Adam's first step is the learning rate times the sign of the gradient.
    before, after = quadratic_step("adam")
    expected = torch.tensor([[0.0, 0.0, -0.1, 0.1], [-0.1, -0.1, 0.0, 0.0]])
    torch.testing.assert_close(after - before, expected, atol=1e-6, rtol=0)


def test_the_average_forgets_as_stated():
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.0)
        average = WeightAverage(layer, 0.5)
        layer.weight.fill_(1.0)
        average.update(1)  # decay min(0.5, 2/11)
        assert average.state_dict()["weight"].item() == pytest.approx(9 / 11)
        average.update(1000)  # decay 0.5
        assert average.state_dict()["weight"].item() == pytest.approx(10 / 11)


def test_decay_zero_is_the_network_itself():
    layer = nn.Linear(3, 3)
    average = WeightAverage(layer, 0.0)
    with torch.no_grad():
        layer.weight.normal_()
    average.update(1)
    assert torch.equal(average.network().get_parameter("weight"), layer.weight)


def test_weight_norm_trains_length_and_direction_and_folds_to_the_same_function():
    torch.manual_seed(0)
    network = SwiseNet(2, channels=8)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    plain_names = set(network.state_dict())
    lr = torch.rand(1, 3, 6, 5)
    expected = network(lr)
    names = normalise_weights(network, ["head", "*reductions*", "upsampler*"])
    assert {"head", "body.reductions.2", "upsampler.reduce.tail"} <= set(names)
    assert "fuse" not in names
    # A tolerance of fp32 rounding: g * v / |v| is not the same arithmetic as w.
    torch.testing.assert_close(network(lr), expected, atol=1e-4, rtol=1e-4)
    length, direction = network.get_submodule("head.parametrizations.weight").parameters()
    network(lr).sum().backward()
    assert length.shape == (8, 1, 1, 1)
    # The length is a parameter of its own, so nothing pulls v along itself.
    assert direction.grad is not None
    radial = (direction.grad * direction).sum((1, 2, 3))
    torch.testing.assert_close(radial, torch.zeros(8), atol=1e-3, rtol=0)
    averaged = WeightAverage(network, 0.9).network()
    assert set(averaged.state_dict()) == plain_names
    assert not any(parametrize.is_parametrized(m) for m in averaged.modules())
    torch.testing.assert_close(averaged(lr), expected, atol=1e-4, rtol=1e-4)
    assert parametrize.is_parametrized(network.head)
    torch.testing.assert_close(network(lr), expected, atol=1e-4, rtol=1e-4)


def test_folding_a_plain_network_changes_nothing():
    network = SwiseNet(2, channels=8)
    before = copy.deepcopy(network.state_dict())
    fold_weights(network)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_a_pattern_without_a_convolution_is_refused():
    with pytest.raises(InputError, match=r"'haed' matches no convolution.*head"):
        normalise_weights(SwiseNet(2, channels=8), ["haed"])


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(InputError, match="fp16 on a CPU; expected fp32, bf16 or auto"):
        resolve_precision("fp16", "cpu")


def test_auto_says_what_it_measured_and_a_format_is_taken_as_asked():
    assert resolve_precision("fp32", "cpu") == ("fp32", "as configured")
    chosen, reason = resolve_precision("auto", "cpu")
    assert CAPABILITY in reason
    # AVX2 has no bf16 arithmetic: it is emulated there, at a fraction of fp32's speed.
    assert chosen == "fp32" if CAPABILITY == "AVX2" else chosen in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("speedup", "reason"),
    [
        (1.0, "as this run began"),
        (
            0.0721,
            (
                f"as this run began, but measured on this CPU ({CAPABILITY}): bf16 runs at 0.07x "
                "of fp32's speed; --precision auto would take fp32"
            ),
        ),
    ],
)
def test_bf16_is_taken_as_asked_and_said_to_be_slow_where_it_is(monkeypatch, speedup, reason):
    monkeypatch.setattr("swise_deploy.training.step.precision.bf16_speedup", lambda **_: speedup)
    made = resolve_precision("bf16", "cpu", because="as this run began")
    assert made == ("bf16", reason)


@pytest.mark.parametrize("precision", ["auto", "fp16", "fp32"])
@pytest.mark.parametrize("accelerator", ["cuda", "gpu"])
def test_a_gpu_that_torch_does_not_see_is_told_before_anything_starts(accelerator, precision):
    if torch.cuda.is_available():
        pytest.skip("this torch has a GPU")
    with pytest.raises(
        BackendMissingError, match=f"accelerator is {accelerator}, but torch .* no GPU"
    ):
        resolve_precision(precision, accelerator)

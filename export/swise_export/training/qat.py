"""Quantisation-aware training: a network's deploy form, rounded as a precision plan rounds it.

Forward, the inputs and weights of the planned layers are rounded to the INT8 values of the exported
graph; backward, gradients pass as if nothing had been rounded (Jacob et al., "Quantization and
training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018). The saved
weights are the network's own, already rounded, with a plan for them: exported with it they compute
what was trained.
"""

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import InputError
from swise_deploy.storage.files import sha256_of
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.start.trained_form import PLAN_NAME, TrainedForm
from swise_export.precision.plan import PrecisionPlan, read_plan, write_plan
from swise_export.precision.quantised.qdq import INT8_MAX, Layer, scale_from_range, steps_of_inputs
from swise_export.precision.recipe import planned_layers
from swise_export.rewriting.deploy_form import DeployScaleWiseUpsample, deploy_form
from swise_export.rewriting.plain_form import network_from_deploy_form
from swise_export.tracing.trace import traced


def form_from_plan(network: nn.Module, config: TrainConfig) -> TrainedForm:
    """The form of a network that `swise-train --qat PLAN` trains.

    Raises:
        InputError: The plan cannot be read, is for another network, or names a layer that cannot be
            trained in INT8.
    """
    assert config.qat is not None, "--qat is given"
    plan = read_plan(config.qat)
    if (plan.model, plan.scale) != (config.model, config.scale):
        raise InputError(
            f"{config.qat} is a plan for {plan.model} x{plan.scale}; the run trains "
            f"{config.model} x{config.scale}. Make one for it: swise-export --int8 "
            "--precision-plan NEW.json"
        )
    if plan.precision != "int8":
        raise InputError(
            f"{config.qat} is a plan for {plan.precision}; expected one for INT8, the format that "
            "is trained. Make it: swise-export --int8 --precision-plan NEW.json"
        )
    note = (
        f"{len(plan.quantised_layers)} layers in INT8, {plan.mult_adds_share:.1%} of the Mult-Adds"
    )
    if config.init is not None and sha256_of(config.init) != plan.weights_sha256:
        note += f"; the plan's ranges were measured with other weights than {config.init.name}"
    return TrainedForm(
        module=quantised_form(network, plan, name=config.model),
        plain=lambda trained: network_from_deploy_form(network, trained),
        teacher=deploy_form(network),
        note=note,
        finish=lambda weights, drift_db: _write_trained_plan(plan, weights, drift_db),
    )


def _write_trained_plan(plan: PrecisionPlan, weights: Path, drift_db: float | None) -> None:
    """The plan of the trained weights, beside them: the same layers and ranges."""
    trained = dataclasses.replace(
        plan,
        weights_sha256=sha256_of(weights),
        rounding="nearest",
        held_out_drift_db=plan.held_out_drift_db if drift_db is None else drift_db,
        drift_by_step=(),
    )
    write_plan(weights.with_name(PLAN_NAME), trained)


def quantised_form(network: nn.Module, plan: PrecisionPlan, *, name: str) -> nn.Module:
    """A trainable form of a network that computes what the plan's graph computes.

    Args:
        network: fp32; not changed.
        plan: Its INT8 layers are rounded, the rest stays fp32.
        name: Of the network, for messages.

    Raises:
        InputError: The network has not got a planned layer, or it cannot be trained in INT8.
    """
    deployed = deploy_form(network) if plan.form == "deploy" else copy.deepcopy(network).eval()
    loaded = LoadedNetwork(deployed, name, plan.scale, "in training", plan.weights_sha256)
    layers = planned_layers(traced(deployed, loaded), plan)
    _set_trainable(deployed, network)
    ranges = {layer.name: layer.range for layer in plan.quantised_layers}
    unsigned = {layer.name for layer in plan.unsigned_layers}
    steps = steps_of_inputs(layers, ranges, unsigned=unsigned)
    factors = {layer.name: layer.factors for layer in plan.quantised_layers}
    for layer, (module, tensor) in zip(layers, _find_modules(deployed, layers), strict=True):
        own = torch.tensor(factors[layer.name] or (1.0,))
        module.add_module(_INPUT, RoundedInput(steps[layer.input], own, layer.name in unsigned))
        module.register_forward_pre_hook(_round_input)
        parametrize.register_parametrization(
            module, tensor, RoundedWeights(layer.channel_axis, own, _group(module)), unsafe=True
        )
    return deployed


class RoundedInput(nn.Module):
    """Divides channels by factors, rounds to INT8 values and multiplies again.

    Args:
        step: Of the rounding, as in QuantizeLinear.
        factors: One for each channel (C,), or one for all.
        unsigned: Values are 0 to 255, not -128 to 127.
    """

    step: Tensor
    zero: Tensor
    factors: Tensor

    def __init__(self, step: float, factors: Tensor, unsigned: bool = False) -> None:
        super().__init__()
        self.lowest = 0 if unsigned else -INT8_MAX - 1
        self.register_buffer("step", torch.tensor(step))
        self.register_buffer("zero", torch.tensor(0, dtype=torch.int32))
        self.register_buffer("factors", factors.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Round and clip (N, C, H, W); gradients pass where nothing was clipped."""
        rounded = torch.fake_quantize_per_tensor_affine(
            x / self.factors, self.step, self.zero, self.lowest, self.lowest + 255
        )
        return rounded * self.factors


class RoundedWeights(nn.Module):
    """Rounds weights to INT8 values; each output channel's largest weight becomes 127.

    Args:
        axis: Of the output channels.
        factors: Of the input channels, by which the weights are multiplied before; one for all of
            them is allowed.
        group: Of the convolution.
    """

    factors: Tensor

    def __init__(self, axis: int, factors: Tensor, group: int) -> None:
        super().__init__()
        self.axis, self.group = axis, group
        self.register_buffer("factors", factors)

    def forward(self, weights: Tensor) -> Tensor:
        """Round; gradients pass."""
        factors = self._factors(weights)
        scaled = weights * factors
        steps = _steps_of(scaled.detach(), self.axis)
        zeros = torch.zeros_like(steps, dtype=torch.int32)
        rounded = torch.fake_quantize_per_channel_affine(
            scaled, steps, zeros, self.axis, -INT8_MAX, INT8_MAX
        )
        return rounded / factors

    def _factors(self, weights: Tensor) -> Tensor:
        """In a shape that multiplies the weights."""
        if self.factors.numel() == 1:
            return self.factors
        if self.axis != 0:  # a transposed convolution, whose first axis is the input's
            return self.factors.reshape(-1, *(1,) * (weights.ndim - 1))
        by_group = self.factors.reshape(self.group, 1, -1)
        by_output = by_group.expand(-1, len(weights) // self.group, -1).flatten(0, 1)
        return by_output.reshape(*by_output.shape, *(1,) * (weights.ndim - 2))


def _group(module: nn.Module) -> int:
    found: int = getattr(module, "groups", 1)
    return found


def _steps_of(weights: Tensor, axis: int) -> Tensor:
    """The scales that `swise_export.precision.quantised.qdq.scales_of_weights` gives."""
    largest = weights.transpose(0, axis).flatten(1).abs().amax(dim=1)
    return (largest / INT8_MAX).half().float().clamp(min=scale_from_range(0.0))


# The name of the submodule that rounds a layer's input.
_INPUT = "int8_input"


def _round_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    rounded: Tensor = getattr(module, _INPUT)(inputs[0])
    return (rounded, *inputs[1:])


def _find_modules(deployed: nn.Module, layers: Sequence[Layer]) -> list[tuple[nn.Module, str]]:
    """The module of each layer, and the name of its weights there.

    The tracer names a layer's weights as the state dict does.

    Raises:
        InputError: A layer's weights are no tensor of the network, or several layers share them.
    """
    tensors = {**dict(deployed.named_parameters()), **dict(deployed.named_buffers())}
    found, seen = [], set()
    for layer in layers:
        if layer.weight not in tensors or layer.weight in seen:
            why = "shares its weights with another" if layer.weight in seen else "is no convolution"
            raise InputError(
                f"layer {layer.name} of the precision plan {why}; training in INT8 serves "
                "convolutions with weights of their own. Make a plan without it"
            )
        seen.add(layer.weight)
        path, _, tensor = layer.weight.rpartition(".")
        found.append((deployed.get_submodule(path), tensor))
    return found


def _set_trainable(deployed: nn.Module, network: nn.Module) -> None:
    """Train the parameters that the network trains; convolutions of zeros and ones stay fixed."""
    fixed = {name for name, p in network.named_parameters() if not p.requires_grad}
    for name, parameter in deployed.named_parameters():
        parameter.requires_grad_(name not in fixed)
    for module in deployed.modules():
        if isinstance(module, DeployScaleWiseUpsample):
            module.shift_add.weight.requires_grad = False

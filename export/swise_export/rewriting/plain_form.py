"""Conversion of weights from the deploy form, where they were trained, to the original network.

Every rewrite of `deploy_form` can be undone. The result is not the original weights, but weights
that give the same deploy form again, bit by bit: norms get weight 1 and bias 0, beta and gamma
become 1.
"""

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from swise_deploy.networks.parts.scale_wise import ScaleWiseUpsample
from swise_deploy.networks.swisenet import ChannelLayerNorm, ChunkGatedBlock
from swise_export.rewriting.deploy_form import DeployChunkGatedBlock, DeployScaleWiseUpsample


def network_from_deploy_form(network: nn.Module, deployed: nn.Module) -> nn.Module:
    """Convert the weights of a deploy form to weights of the original network.

    Args:
        network: The argument of `deploy_form`; not changed.
        deployed: The result of `deploy_form`, with other weights.

    Returns:
        A copy of `network` in eval mode whose deploy form has the weights of `deployed`.
    """
    restored = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    _restore(restored, deployed)
    return restored


def _restore(module: nn.Module, deployed: nn.Module) -> None:
    undo = _INVERSES.get(type(module))
    if undo is not None:
        undo(module, deployed)
        return
    for own in (module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
        for name, tensor in own:
            tensor.copy_(getattr(deployed, name))
    for name, child in module.named_children():
        _restore(child, getattr(deployed, name))


def _restore_block(block: ChunkGatedBlock, deployed: DeployChunkGatedBlock) -> None:
    for norm in (block.norm1, block.norm2):
        _make_plain(norm)
    _join(block.conv1, deployed.conv1a, deployed.conv1b)
    _join(block.dwconv, deployed.dwconva, deployed.dwconvb)
    _join(block.conv4, deployed.conv4a, deployed.conv4b)
    for name in ("attention", "conv3", "conv5"):
        _restore(getattr(block, name), getattr(deployed, name))
    block.beta.fill_(1)
    block.gamma.fill_(1)
    block.prelu.weight.fill_(deployed.act.negative_slope)


def _make_plain(norm: ChannelLayerNorm) -> None:
    norm.weight.fill_(1)
    norm.bias.zero_()


def _join(conv: nn.Conv2d, first: nn.Conv2d, second: nn.Conv2d) -> None:
    conv.weight.copy_(torch.cat([first.weight, second.weight]))
    _set_bias(conv, torch.cat([cast("Tensor", first.bias), cast("Tensor", second.bias)]))


def _restore_upsampler(upsampler: ScaleWiseUpsample, deployed: DeployScaleWiseUpsample) -> None:
    # The tails' biases are added up in the sum behind them, so the first tail gets all of it.
    bias = cast("Tensor", deployed.shift_add.bias)
    for name, branch in upsampler.named_children():
        parts = cast("nn.Sequential", getattr(deployed, name))
        tail = cast("nn.Conv2d", branch.tail)
        _restore(cast("nn.Module", branch.conv), parts[0])
        taps = cast("nn.Conv2d", parts[3]).weight
        tail.weight.copy_(_tail_from_taps(taps, tail))
        _set_bias(tail, bias)
        bias = torch.zeros_like(bias)


def _tail_from_taps(taps: Tensor, tail: nn.Conv2d) -> Tensor:
    """Undo `_taps_from_tail` and `_unshuffled` of the deploy form."""
    rows, columns = tail.kernel_size
    return taps.reshape(rows, columns, tail.out_channels, tail.in_channels).permute(2, 3, 0, 1)


def _set_bias(conv: nn.Conv2d, bias: Tensor) -> None:
    assert conv.bias is not None, "SwiseNet's convolutions have biases"
    conv.bias.copy_(bias)


_INVERSES: dict[type[nn.Module], Callable[[nn.Module, nn.Module], None]] = {
    ChunkGatedBlock: lambda module, deployed: _restore_block(
        cast("ChunkGatedBlock", module), cast("DeployChunkGatedBlock", deployed)
    ),
    ScaleWiseUpsample: lambda module, deployed: _restore_upsampler(
        cast("ScaleWiseUpsample", module), cast("DeployScaleWiseUpsample", deployed)
    ),
}

"""LBNet: a convolutional half that runs twice with the same weights, and a recursive transformer.

Gao et al., "Lightweight Bimodal Network for Single-Image Super-Resolution via Symmetric CNN and
Recursive Transformer", IJCAI 2022. Parameter names are those of the authors' checkpoints.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.networks.parts.pixel_range import DIV2K_MEAN, trained_range, unit_range_state
from swise_deploy.networks.parts.pooling import global_average
from swise_deploy.networks.parts.upsamplers import make_upsampler, upsampler_scale
from swise_deploy.networks.registry import Recognised, Upsampler, check_option

NUM_RECURSIONS = 3
NUM_GROUPS = 16
MASKED = -1e4  # far below any logit, within the range of FP16
PATCH = 9  # a token is a 3x3 neighbourhood


@dataclass(frozen=True, slots=True)
class LbnetSize:
    """Sizes of an LBNet.

    Attributes:
        channels: Feature maps.
        heads: Attention heads; they are not in the weights' shapes.
        halved: Whether attention works on half of a token's channels.
    """

    channels: int
    heads: int
    halved: bool


SIZES = {"": LbnetSize(32, 8, halved=True), "tiny": LbnetSize(18, 6, halved=False)}


class LBNet(nn.Module):
    """LBNet for one scale."""

    def __init__(
        self, scale: int, size: LbnetSize = SIZES[""], *, upsampler: Upsampler = "default"
    ) -> None:
        super().__init__()
        self.scale = scale
        channels = size.channels
        self.sub_mean = _make_shift(-1)
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.r1 = FeatureFusion(channels)
        self.r2 = FeatureFusion(channels)
        self.r3 = FeatureFusion(channels)
        self.se1 = ChannelAttention(channels)
        self.se2 = ChannelAttention(channels)
        self.se3 = ChannelAttention(channels)
        self.c1 = nn.Conv2d(6 * channels, channels, 1)
        self.attention = EfficientTransformer(size)
        self.c2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.attention2 = EfficientTransformer(size)
        self.c3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsampler = make_upsampler(channels, scale, upsampler)
        self.add_mean = _make_shift(1)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of pictures.

        Args:
            lr: (N, 3, H, W), float, RGB in [0, 1], any H, W >= 1.

        Returns:
            (N, 3, H*scale, W*scale), float, RGB, not clamped to [0, 1].
        """
        features = self.head(self.sub_mean(lr))
        a1 = self.r1(features)
        a2 = self.r2(a1)
        a3 = self.r3(a2)
        b1 = self.r1(a3 + self.se1(a1))
        b2 = self.r2(b1 + self.se2(a2))
        b3 = self.r3(b2 + self.se3(a3))
        x = self.c1(torch.cat([a1, a2, a3, b1, b2, b3], dim=1))
        x = self.c2(self.attention(x))
        x = self.c3(self.attention2(x))
        sr: Tensor = self.add_mean(self.upsampler(x + features))
        return sr


class FeatureFusion(nn.Module):
    """Local feature fusion module (LFFM): three dual-attention blocks, densely connected."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.b1 = DualAttentionBlock(channels)
        self.b2 = DualAttentionBlock(channels)
        self.b3 = DualAttentionBlock(channels)
        self.c1 = nn.Conv2d(2 * channels, channels, 1, groups=2)
        self.c2 = nn.Conv2d(3 * channels, channels, 1, groups=2)
        self.c3 = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        first = self.b1(x)
        second = self.b2(self.c1(torch.cat([x, first], dim=1)))
        third = self.b3(self.c2(torch.cat([x, first, second], dim=1)))
        y: Tensor = x + self.c3(torch.cat([x, first, second, third], dim=1))
        return y


class DualAttentionBlock(nn.Module):
    """Feature refinement dual-attention block (FRDAB)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.c1 = nn.Conv2d(channels, channels, 1)
        self.c2 = nn.Conv2d(channels, half, 3, padding=1)
        self.c3 = nn.Conv2d(channels, half, 3, padding=1)
        self.c4 = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.c5 = nn.Conv2d(half, half, 3, padding=1)
        self.c6 = nn.Conv2d(2 * channels, channels, 1)
        self.se = ChannelAttention(2 * channels)
        self.sa = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        y1 = F.relu(self.c1(x))
        y2 = F.relu(self.c2(y1))
        y3 = F.relu(self.c3(y1))
        y4 = F.relu(self.c4(torch.cat([y1, y2, y3], dim=1)))
        gathered = torch.cat([y2, self.c5(y3), y4], dim=1)
        y: Tensor = x + self.c6(self.se(gathered) + self.sa(gathered))
        return y


class ChannelAttention(nn.Module):
    """Channel attention: weights from the average of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = channels // 16
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        return x * torch.sigmoid(self.conv_du(global_average(x)))


class SpatialAttention(nn.Module):
    """Weigh pixels by the mean and the largest of their channels around them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv1(summary)) * x


class EfficientTransformer(nn.Module):
    """A transformer block on 3x3 neighbourhoods, applied three times with the same weights."""

    def __init__(self, size: LbnetSize) -> None:
        super().__init__()
        width = PATCH * size.channels
        self.atten = SplitAttention(width, size.heads, halved=size.halved)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        batch, channels, height, width = x.shape
        length = height * width
        tokens = unfold3(x).reshape(batch, PATCH * channels, length).transpose(1, 2)
        tokens, group, absent = pad_to_groups(tokens, length)
        for _ in range(NUM_RECURSIONS):
            tokens = tokens + self.atten(self.norm1(tokens), group, absent)
            tokens = tokens + self.mlp(self.norm2(tokens))
        patches = tokens[:, :length].transpose(1, 2)
        return fold3(patches.reshape(batch, channels, PATCH, height, width))


class SplitAttention(nn.Module):
    """Multi-head attention within 16 groups of consecutive tokens, and a last one of the rest.

    Splitting keeps the memory of attention bearable; it also makes the result depend on the size
    of the picture, since the groups do. The 16 are computed as one batch: a graph of them one by
    one has thousands of nodes.
    """

    def __init__(self, width: int, heads: int, *, halved: bool) -> None:
        super().__init__()
        inner = width // 2 if halved else width
        self.heads = heads
        self.scale = (width // heads) ** -0.5  # of the full width, as the authors have it
        self.reduce = nn.Linear(width, inner, bias=False)
        self.qkv = nn.Linear(inner, 3 * inner, bias=False)
        self.proj = nn.Linear(inner, width)

    def forward(self, x: Tensor, group: int, absent: Tensor) -> Tensor:
        """Attend within groups.

        Args:
            x: (N, 16 * group + 16, width), tokens as `pad_to_groups` gives them.
            group: Tokens in each of the 16 groups.
            absent: (1, 1, 1, 16), added to the logits of the last group's places.

        Returns:
            (N, 16 * group + 16, width).
        """
        qkv = self.qkv(self.reduce(x))
        alike = self._attend(qkv[:, :-NUM_GROUPS], NUM_GROUPS, group, None)
        rest = self._attend(qkv[:, -NUM_GROUPS:], 1, NUM_GROUPS, absent)
        y: Tensor = self.proj(torch.cat([alike, rest], dim=1))
        return y

    def _attend(self, qkv: Tensor, num_groups: int, group: int, mask: Tensor | None) -> Tensor:
        """(N, num_groups * group, 3 * inner) to (N, num_groups * group, inner)."""
        batch, inner = qkv.shape[0], self.proj.in_features
        # Every size is written out: a builder cannot bound one that it has to work out.
        split = qkv.reshape(batch * num_groups, group, 3, self.heads, inner // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)  # (N * num_groups, heads, group, d) each
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        return y.transpose(1, 2).reshape(batch, num_groups * group, inner)


class Mlp(nn.Module):
    """Two linear layers, a quarter of the width between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width // 4)
        self.fc2 = nn.Linear(width // 4, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, L, width) to (N, L, width)."""
        y: Tensor = self.fc2(F.relu(self.fc1(x)))
        return y


def pad_to_groups(tokens: Tensor, length: int) -> tuple[Tensor, int, Tensor]:
    """Give the 16 groups and the rest of up to 15 tokens their places.

    The rest gets 16 places, of which the last 1 to 16 are absent. Pictures of fewer than 16 pixels,
    at which the authors' code stops, become groups of one token, some of them void.

    Args:
        tokens: (N, length, width).
        length: Number of tokens.

    Returns:
        (N, 16 * group + 16, width) tokens; the group; (1, 1, 1, 16) to add to the logits of the
        rest, so that nobody attends to absent places.
    """
    # L // 16, but 1 where L < 16; arithmetic and no branch, so that L stays dynamic in ONNX.
    group = length // NUM_GROUPS + (15 // length + 15) // 16
    padded = F.pad(tokens, (0, 0, 0, NUM_GROUPS * group + NUM_GROUPS - length))
    places = torch.arange(NUM_GROUPS, device=tokens.device) + NUM_GROUPS * group
    absent = (places >= length).to(tokens.dtype).view(1, 1, 1, NUM_GROUPS) * MASKED
    return padded, group, absent


def unfold3(x: Tensor) -> Tensor:
    """The 3x3 neighbourhood of every pixel, zeros outside: (N, C, H, W) to (N, C, 9, H, W)."""
    padded = F.pad(x, (1, 1, 1, 1))
    return torch.stack([_shift(padded, dy, dx) for dy in range(3) for dx in range(3)], dim=2)


def fold3(patches: Tensor) -> Tensor:
    """Add every neighbourhood back where it came from: (N, C, 9, H, W) to (N, C, H, W)."""
    padded = F.pad(patches, (1, 1, 1, 1))
    shifted = [_shift(padded[:, :, k], 2 - k // 3, 2 - k % 3) for k in range(PATCH)]
    return torch.stack(shifted).sum(dim=0)


def _shift(padded: Tensor, dy: int, dx: int) -> Tensor:
    """A window of (H, W) in (H + 2, W + 2); counted from the end, so that sizes stay dynamic."""
    return padded[..., dy : dy - 2 or None, dx : dx - 2 or None]


def _make_shift(sign: int) -> nn.Conv2d:
    """Subtract or add the mean of DIV2K; a layer, since the authors trained it with the others."""
    shift = nn.Conv2d(3, 3, 1)
    mean = torch.tensor(DIV2K_MEAN)
    shift.load_state_dict({"weight": torch.eye(3).view(3, 3, 1, 1), "bias": sign * mean})
    return shift


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """LBNet, or LBNet-T with option "tiny", with fresh weights."""
    check_option("lbnet", option, SIZES)
    return LBNet(scale, SIZES[option], upsampler=upsampler)


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Recognise LBNet and LBNet-T weights, with their own head or SUM."""
    if not {"r1.b1.sa.conv1.weight", "attention.atten.qkv.weight"} <= set(state):
        return None
    own = _own_state(state) if "tail.0.weight" in state else dict(state)
    channels = own["head.weight"].shape[0]
    halved = own["attention.atten.reduce.weight"].shape[0] < PATCH * channels
    heads = SIZES["" if halved else "tiny"].heads
    size = LbnetSize(channels, heads, halved=halved)
    with_sum = "upsampler.equal.conv.weight" in own

    def load(scale: int) -> nn.Module:
        network = LBNet(scale, size, upsampler="sum" if with_sum else "default")
        network.load_state_dict(own)
        return network

    name = "lbnet_t" if size == SIZES["tiny"] else "lbnet"
    return Recognised(name, (upsampler_scale(own, channels),), load)


def _own_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' checkpoint as this module names it, for pictures in 0..1."""
    named = {k.replace("tail.0.", "upsampler.conv."): v for k, v in state.items()}
    white = trained_range(state)
    return unit_range_state(named, first="sub_mean.", last="add_mean.", white=white)

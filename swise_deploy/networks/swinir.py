"""SwinIR, lightweight: self-attention within windows that are shifted by half from layer to layer.

Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCV Workshops 2021. Parameter
names are those of the authors' checkpoints. Any picture size works: the picture is mirrored to a
multiple of the window inside, and the masks of shifted windows are computed from the size in the
graph, so that ONNX files are dynamic.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.networks.parts.padding import mirror_to_multiple
from swise_deploy.networks.parts.pixel_range import DIV2K_MEAN
from swise_deploy.networks.parts.upsamplers import make_upsampler, upsampler_scale
from swise_deploy.networks.registry import Recognised, Upsampler, check_option

# Added to logits between pixels that are no neighbours (Swin, Liu et al., ICCV 2021).
MASKED = -100.0


@dataclass(frozen=True, slots=True)
class SwinirSize:
    """Sizes of a SwinIR with the one-convolution head.

    Attributes:
        channels: Channels of a token.
        depths: Transformer layers in each group; even layers have shifted windows.
        heads: Attention heads; they are not in the shapes of the linear layers.
        window: Side of a window in pixels.
        mlp_ratio: Width of the feed-forward layers over `channels`.
    """

    channels: int
    depths: tuple[int, ...]
    heads: int
    window: int
    mlp_ratio: float


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """The division of a batch into windows, computed once: in a graph, sizes are nodes.

    Attributes:
        window: Side of a window in pixels.
        channels: C.
        batch: N.
        height: H, a multiple of the window.
        width: W, likewise.
        columns: Windows side by side.
        strips: Rows of windows in all pictures together.
        num_windows: In all pictures together.
        mask: (num_windows, 1, pixels, pixels), added to the logits of shifted windows.
    """

    window: int
    channels: int
    batch: int
    height: int
    width: int
    columns: int
    strips: int
    num_windows: int
    mask: Tensor


LIGHT = SwinirSize(channels=60, depths=(6, 6, 6, 6), heads=6, window=8, mlp_ratio=2.0)


class SwinIR(nn.Module):
    """SwinIR for one scale."""

    mean: Tensor

    def __init__(
        self, scale: int, size: SwinirSize = LIGHT, *, upsampler: Upsampler = "default"
    ) -> None:
        super().__init__()
        self.scale = scale
        self.window = size.window
        channels = size.channels
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(3, channels, 3, padding=1)
        self.patch_norm = nn.LayerNorm(channels)
        self.layers = nn.ModuleList(TransformerGroup(size, depth) for depth in size.depths)
        self.norm = nn.LayerNorm(channels)
        self.conv_after_body = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsampler = make_upsampler(channels, scale, upsampler)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of pictures.

        Args:
            lr: (N, 3, H, W), float, RGB in [0, 1], any H, W >= 1.

        Returns:
            (N, 3, H*scale, W*scale), float, RGB, not clamped to [0, 1].
        """
        height, width = lr.shape[2:]
        features = self.conv_first(mirror_to_multiple(lr, self.window) - self.mean)
        grid = window_grid(features, self.window)
        x = self.patch_norm(features.permute(0, 2, 3, 1))
        for group in self.layers:
            x = group(x, grid)
        x = self.norm(x).permute(0, 3, 1, 2)
        sr: Tensor = self.upsampler(self.conv_after_body(x) + features) + self.mean
        return sr[:, :, : height * self.scale, : width * self.scale]


class TransformerGroup(nn.Module):
    """Residual Swin transformer block (RSTB): layers, a convolution, and a residual around them."""

    def __init__(self, size: SwinirSize, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TransformerLayer(size, shift=size.window // 2 if i % 2 else 0) for i in range(depth)
        )
        self.conv = nn.Conv2d(size.channels, size.channels, 3, padding=1)

    def forward(self, x: Tensor, grid: WindowGrid) -> Tensor:
        """Map (N, H, W, C) to (N, H, W, C)."""
        y = x
        for block in self.blocks:
            y = block(y, grid)
        convolved: Tensor = self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return convolved + x


class TransformerLayer(nn.Module):
    """Swin transformer layer (STL): window attention, then a feed-forward step."""

    def __init__(self, size: SwinirSize, *, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(size.channels)
        self.attn = WindowAttention(size.channels, size.heads, size.window)
        self.norm2 = nn.LayerNorm(size.channels)
        self.mlp = Mlp(size.channels, int(size.channels * size.mlp_ratio))

    def forward(self, x: Tensor, grid: WindowGrid) -> Tensor:
        """Map (N, H, W, C), H and W multiples of the window, to (N, H, W, C)."""
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        windows = split_windows(y, grid)
        windows = self.attn(windows, grid.mask if self.shift else None)
        y = join_windows(windows, grid)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        z: Tensor = x + self.mlp(self.norm2(x))
        return z


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias for every relative position."""

    positions: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        side = 2 * window - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(side * side, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("positions", relative_positions(window), persistent=False)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within windows.

        Args:
            windows: (N * windows, pixels, C).
            mask: (N * windows, 1, pixels, pixels), added to the logits; None for windows that are
                not shifted.

        Returns:
            (N * windows, pixels, C).
        """
        pixels, channels = self.positions.shape[0], windows.shape[2]
        qkv = self.qkv(windows).reshape(-1, pixels, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        logits = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.positions.reshape(-1)]
        logits = logits + bias.reshape(pixels, pixels, self.heads).permute(2, 0, 1)
        if mask is not None:
            logits = logits + mask
        attended = logits.softmax(dim=-1) @ v
        y: Tensor = self.proj(attended.transpose(1, 2).reshape(-1, pixels, channels))
        return y


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


def relative_positions(window: int) -> Tensor:
    """Row of the bias table for every pair of pixels of a window: (pixels, pixels), int64."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.reshape(-1), x.reshape(-1)
    down = y[:, None] - y[None, :] + window - 1
    right = x[:, None] - x[None, :] + window - 1
    return down * (2 * window - 1) + right


def window_grid(features: Tensor, window: int) -> WindowGrid:
    """Divide (N, C, H, W), H and W multiples of the window."""
    batch, channels, height, width = features.shape
    rows, columns = height // window, width // window
    zones = edge_zones(features, window).reshape(rows, window, columns, window).transpose(1, 2)
    zones = zones.reshape(rows * columns, 1, window * window)
    apart = (zones[..., None] != zones[..., None, :]).to(features.dtype) * MASKED
    return WindowGrid(
        window=window,
        channels=int(channels),  # the same for every picture: a constant in a graph
        batch=batch,
        height=height,
        width=width,
        columns=columns,
        strips=batch * rows,
        num_windows=batch * rows * columns,
        mask=apart.repeat(batch, 1, 1, 1),
    )


def edge_zones(features: Tensor, window: int) -> Tensor:
    """Number the zones of a shifted picture: (H, W), int32, for features (N, C, H, W).

    A picture that is rolled by half a window has opposite edges side by side in its last windows;
    pixels of different zones must not attend to each other.
    """
    height, width = features.shape[2:]
    rows = torch.arange(height, device=features.device)
    columns = torch.arange(width, device=features.device)
    half = window // 2
    row_zone = (rows >= height - window).int() + (rows >= height - half).int()
    column_zone = (columns >= width - window).int() + (columns >= width - half).int()
    return 3 * row_zone[:, None] + column_zone[None, :]


def split_windows(x: Tensor, grid: WindowGrid) -> Tensor:
    """(N, H, W, C) to (N * windows, window^2, C), windows row by row."""
    side = grid.window
    tiles = x.reshape(grid.strips, side, grid.columns, side, grid.channels).transpose(1, 2)
    return tiles.reshape(grid.num_windows, side * side, grid.channels)


def join_windows(windows: Tensor, grid: WindowGrid) -> Tensor:
    """Undo `split_windows`."""
    side = grid.window
    tiles = windows.reshape(grid.strips, grid.columns, side, side, grid.channels).transpose(1, 2)
    return tiles.reshape(grid.batch, grid.height, grid.width, grid.channels)


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """SwinIR-light with fresh weights."""
    check_option("swinir_light", option)
    return SwinIR(scale, upsampler=upsampler)


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Recognise weights of a SwinIR of any size with the "lightweight" head or SUM."""
    own = {_own_name(k): v for k, v in state.items() if not k.endswith(_COMPUTED)}
    table = own.get("layers.0.blocks.0.attn.relative_position_bias_table")
    if table is None or not _HEADS & set(own):
        return None
    channels = own["conv_first.weight"].shape[0]
    size = SwinirSize(
        channels=channels,
        depths=tuple(_count(own, f"layers.{i}.blocks.") for i in range(_count(own, "layers."))),
        heads=table.shape[1],
        window=(round(table.shape[0] ** 0.5) + 1) // 2,
        mlp_ratio=own["layers.0.blocks.0.mlp.fc1.weight"].shape[0] / channels,
    )

    def load(scale: int) -> nn.Module:
        with_sum = "upsampler.equal.conv.weight" in own
        network = SwinIR(scale, size, upsampler="sum" if with_sum else "default")
        network.load_state_dict(own)
        return network

    return Recognised("swinir_light", (upsampler_scale(own, channels),), load)


_COMPUTED = (".attn_mask", ".relative_position_index")
_HEADS = {"upsampler.conv.weight", "upsampler.equal.conv.weight"}


def _own_name(key: str) -> str:
    """The name in this module of a tensor of the authors' checkpoint."""
    key = key.replace(".residual_group.blocks.", ".blocks.").replace(
        "upsample.0.", "upsampler.conv."
    )
    return key.replace("patch_embed.norm.", "patch_norm.")


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({k.removeprefix(prefix).split(".")[0] for k in state if k.startswith(prefix)})

"""Networks of the published latencies, by their layers; weights do not matter for a latency."""

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _conv(c_in: int, c_out: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups)


class Srcnn(nn.Module):
    """SRCNN 9-1-5 on RGB behind a bicubic resize (MMEditing's form)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(_conv(3, 64, 9), nn.ReLU(), _conv(64, 32, 1), nn.ReLU(), _conv(32, 3, 5))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, 4H, 4W)."""
        y: Tensor = self.body(F.interpolate(x, scale_factor=4, mode="bicubic"))
        return y


class _DenseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(64 + 32 * i, 32 if i < 4 else 64) for i in range(5))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for conv in self.convs[:-1]:
            features.append(F.leaky_relu(conv(torch.cat(features, 1)), 0.2))
        y: Tensor = self.convs[-1](torch.cat(features, 1)) * 0.2 + x
        return y


class Rrdb(nn.Module):
    """ESRGAN's RRDB network with 23 blocks, x4, or x2 behind a pixel unshuffle."""

    def __init__(self, *, unshuffle: int = 1) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.first = _conv(3 * unshuffle**2, 64)
        self.blocks = nn.ModuleList(
            nn.Sequential(_DenseBlock(), _DenseBlock(), _DenseBlock()) for _ in range(23)
        )
        self.body = _conv(64, 64)
        self.up = nn.ModuleList((_conv(64, 64), _conv(64, 64)))
        self.high, self.last = _conv(64, 64), _conv(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, 4H, 4W) or (N, 3, 2H, 2W)."""
        features = first = self.first(F.pixel_unshuffle(x, self.unshuffle))
        for block in self.blocks:
            features = features + block(features) * 0.2
        features = first + self.body(features)
        for conv in self.up:
            features = F.leaky_relu(conv(F.interpolate(features, scale_factor=2)), 0.2)
        y: Tensor = self.last(F.leaky_relu(self.high(features), 0.2))
        return y


class NanoVsr(nn.Module):
    """NanoVSR for one frame: both directions, with the states of the frames beside it as inputs."""

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.channels = channels
        self.first = _conv(3, channels)
        self.chains = nn.ModuleList(
            nn.Sequential(
                *(
                    layer
                    for _ in range(num_blocks)
                    for layer in (_conv(channels, channels), nn.LeakyReLU(0.1))
                )
            )
            for _ in range(2)
        )
        self.fusion = _conv(2 * channels, channels, 1)
        self.up = nn.ModuleList((_conv(channels, 4 * channels), _conv(channels, 128)))
        self.activations = nn.ModuleList((nn.PReLU(), nn.PReLU()))
        self.last = _conv(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, 4H, 4W)."""
        first = F.leaky_relu(self.first(x), 0.1)
        # The other operand of a chain's first sum is the state of the frame before.
        states = [chain(first + first.flip(3)) for chain in self.chains]
        features = self.fusion(torch.cat(states, 1))
        for conv, activation in zip(self.up, self.activations, strict=True):
            features = activation(F.pixel_shuffle(conv(features), 2))
        y: Tensor = self.last(features) + F.interpolate(x, scale_factor=4, mode="bilinear")
        return y


class _LocalAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.AvgPool2d(31, 16, 15, count_include_pad=False),
            *(_conv(channels, channels // 4, 1), nn.ReLU(), _conv(channels // 4, channels, 1)),
            *(nn.Sigmoid(), nn.Upsample(scale_factor=16, mode="nearest")),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)[:, :, : x.shape[2], : x.shape[3]] * x
        return y


class NinaSr(nn.Module):
    """NinaSR of torchSR: residual blocks with local attention."""

    def __init__(self, channels: int, num_blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.first = _conv(3, channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(_conv(channels, 2 * channels), nn.ReLU(), _LocalAttention(2 * channels)),
                _conv(2 * channels, channels),
            )
            for _ in range(num_blocks)
        )
        self.last = _conv(channels, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, sH, sW)."""
        features = first = self.first(x)
        for block in self.blocks:
            features = features + block(features)
        return F.pixel_shuffle(self.last(features + first), self.scale)


class NightJet(nn.Module):
    """NightJet edge-v1: five luma frames to one, a trunk at half size and a branch of detail."""

    def __init__(self) -> None:
        super().__init__()
        self.first = _conv(5, 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(_conv(16, 16, groups=16), nn.ReLU(), _conv(16, 16, 1), nn.ReLU())
            for _ in range(2)
        )
        self.detail = nn.Sequential(_conv(5, 8), nn.ReLU(), _conv(8, 8), nn.ReLU())
        self.fuse = _conv(25, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 5, H, W) to (N, 1, H, W)."""
        features = F.relu(self.first(F.avg_pool2d(x, 2)))
        for block in self.blocks:
            features = features + block(features)
        features = F.interpolate(features, scale_factor=2, mode="nearest")
        middle = x[:, 2:3]
        change = self.fuse(torch.cat((middle, features, self.detail(x)), 1)).tanh() * 0.5
        y: Tensor = (middle + change).clamp(0, 1)
        return y


class _ConvSilu(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = _conv(c_in, c_out, kernel, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(x))


class _C2f(nn.Module):
    def __init__(self, c_in: int, c_out: int, num_blocks: int, *, is_residual: bool) -> None:
        super().__init__()
        half = c_out // 2
        self.is_residual = is_residual
        self.first = _ConvSilu(c_in, c_out, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(_ConvSilu(half, half), _ConvSilu(half, half)) for _ in range(num_blocks)
        )
        self.last = _ConvSilu((2 + num_blocks) * half, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]) if self.is_residual else block(parts[-1]))
        y: Tensor = self.last(torch.cat(parts, 1))
        return y


class Yolov8n(nn.Module):
    """YOLOv8n up to the heads' convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_ConvSilu(3, 16, 3, 2), _ConvSilu(16, 32, 3, 2))
        self.c2 = _C2f(32, 32, 1, is_residual=True)
        self.c3 = nn.Sequential(_ConvSilu(32, 64, 3, 2), _C2f(64, 64, 2, is_residual=True))
        self.c4 = nn.Sequential(_ConvSilu(64, 128, 3, 2), _C2f(128, 128, 2, is_residual=True))
        self.c5 = nn.Sequential(_ConvSilu(128, 256, 3, 2), _C2f(256, 256, 1, is_residual=True))
        self.pool_in, self.pool_out = _ConvSilu(256, 128, 1), _ConvSilu(512, 256, 1)
        self.up4 = _C2f(384, 128, 1, is_residual=False)
        self.up3 = _C2f(192, 64, 1, is_residual=False)
        self.down4, self.out4 = _ConvSilu(64, 64, 3, 2), _C2f(192, 128, 1, is_residual=False)
        self.down5, self.out5 = _ConvSilu(128, 128, 3, 2), _C2f(384, 256, 1, is_residual=False)
        self.heads = nn.ModuleList(
            nn.Sequential(_ConvSilu(c_in, wide), _ConvSilu(wide, wide), _conv(wide, c_out, 1))
            for c_in in (64, 128, 256)
            for wide, c_out in ((64, 64), (80, 80))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 144, H/8, W/8), the heads of other strides added to the finest."""
        c3 = self.c3(self.c2(self.stem(x)))
        c4 = self.c4(c3)
        pools = [self.pool_in(self.c5(c4))]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 5, 1, 2))
        c5 = self.pool_out(torch.cat(pools, 1))
        p4 = self.up4(torch.cat((F.interpolate(c5, scale_factor=2), c4), 1))
        p3 = self.up3(torch.cat((F.interpolate(p4, scale_factor=2), c3), 1))
        p4 = self.out4(torch.cat((self.down4(p3), p4), 1))
        p5 = self.out5(torch.cat((self.down5(p4), c5), 1))
        outputs = []
        for level, features in enumerate((p3, p4, p5)):
            boxes, classes = (head(features) for head in self.heads[2 * level : 2 * level + 2])
            both = torch.cat((boxes, classes), 1)
            outputs.append(F.interpolate(both, scale_factor=2**level) if level else both)
        y: Tensor = outputs[0] + outputs[1] + outputs[2]
        return y


def _bsd500() -> nn.Module:
    """The super_resolution example of PyTorch and ONNX, x3 on luma."""
    return nn.Sequential(
        *(_conv(1, 64, 5), nn.ReLU(), _conv(64, 64), nn.ReLU(), _conv(64, 32), nn.ReLU()),
        *(_conv(32, 9), nn.PixelShuffle(3)),
    )


def _srvgg(num_convs: int, scale: int) -> nn.Module:
    """SRVGGNetCompact with 64 channels, without its resized input."""
    body = [part for _ in range(num_convs) for part in (_conv(64, 64), nn.PReLU(64))]
    return nn.Sequential(
        *(_conv(3, 64), nn.PReLU(64), *body, _conv(64, 3 * scale**2), nn.PixelShuffle(scale))
    )


NETWORKS: Mapping[str, Callable[[int], nn.Module]] = {
    "NanoVSR-226k": lambda _: NanoVsr(32, 8),
    "NanoVSR-644k": lambda _: NanoVsr(48, 12),
    "NanoVSR-1.7M": lambda _: NanoVsr(64, 20),
    "NanoVSR-5.4M": lambda _: NanoVsr(96, 30),
    "NightJet": lambda _: NightJet(),
    "NinaSR-B0": lambda scale: NinaSr(16, 10, scale),
    "NinaSR-B1": lambda scale: NinaSr(32, 26, scale),
    "super_resolution_bsd500": lambda _: _bsd500(),
    "SRCNN": lambda _: Srcnn(),
    "SRVGGNetCompact": lambda scale: _srvgg(16, scale),
    "ESRGAN": lambda _: Rrdb(),
    "4x-UltraSharp": lambda _: Rrdb(),
    "RealESRGAN_x2plus": lambda _: Rrdb(unshuffle=2),
    "YOLOv8n": lambda _: Yolov8n(),
}
"""Makes a network for a scale; the key is the beginning of its published name."""

CHANNELS = {"NightJet": 5, "super_resolution_bsd500": 1}
"""Input channels of networks that do not take RGB."""


def graph_of(name: str, *, scale: int) -> onnx.ModelProto:
    """The ONNX graph of a published network, for every size.

    Raises:
        KeyError: The network is not described here.
    """
    key = next((key for key in NETWORKS if name.startswith(key)), name)
    network = NETWORKS[key](scale).eval()
    x = torch.zeros(1, CHANNELS.get(key, 3), 64, 64)
    axes = {name: {2: f"{name}_height", 3: f"{name}_width"} for name in ("x", "y")}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer is deprecated, and warns of Python numbers
        path = Path(folder) / "network.onnx"
        torch.onnx.export(
            network,
            (x,),
            str(path),
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
        return onnx.load(path)

"""Small inputs, the commands that are run on them, and the readers that check their results."""

import importlib.util
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image

from swise_bench.results.document import read_benchmark
from swise_deploy.storage.files import sha256_of
from swise_engines.running.checks import check_file
from swise_export.manifest import manifest_path
from swise_export.manifest import read_manifest as read_export_manifest
from tests.bench.conftest import save_nearest

Reader = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Command:
    """A command that is killed and run again.

    Attributes:
        name: Shown in tables.
        script: Name of a function of `swise_deploy.command.launch`.
        arguments: Its arguments, separated by spaces, with paths below the workplace.
        needs: Modules without which it cannot run.
        stopped_codes: Exit codes of a run that Ctrl-C ended.
        share: Its share of all kills, relative to the others.
    """

    name: str
    script: str
    arguments: str
    needs: tuple[str, ...] = ()
    stopped_codes: tuple[int, ...] = (130,)
    share: int = 1

    def is_usable(self) -> bool:
        """True where everything that it needs is installed."""
        return all(importlib.util.find_spec(name) is not None for name in self.needs)


_NET = "--model net.onnx --runner onnxruntime --threads 1 --overwrite"
_TRAIN = (
    "--model fsrcnn --steps 3 --batch-size 2 --patch-size 8 --workers 1 --val-every 2 "
    "--save-every 1 --holdout 1 --precision fp32 --ema-decay 0.9"
)
_BENCH = "--size 16x12 --runs 3 --seconds 0.05 --threads 1 --images pictures"
_OUTPUTS = "-o out/bench.json --html out/bench.html --csv out/bench.csv"
_EXPORT = "--model small:make --images pictures --threads 1"

COMMANDS: tuple[Command, ...] = (
    Command("swise-upscale pictures", "upscale", f"pictures -o out/large {_NET}", share=4),
    Command("swise-upscale picture", "upscale", f"pictures/a.png -o out/a.webp {_NET}"),
    Command(
        "swise-upscale video",
        "upscale",
        f"clip.mp4 -o out/clip.mkv {_NET} --preset ultrafast",
        needs=("av",),
        share=4,
    ),
    Command("swise-export", "export", f"{_EXPORT} -o out/small.onnx", share=4),
    Command(
        "swise-build",
        "build",
        "net.onnx --target sm86 -o out/net.engine --size 16x12",
        needs=("tensorrt_rtx", "polygraphy"),
        share=4,
    ),
    Command("swise-build --trtexec", "build", "net.onnx --trtexec -o out/device --size 16x12"),
    Command("swise-bench", "bench", f"net.onnx {_BENCH} {_OUTPUTS}", share=4),
    Command(
        "swise-train",
        "train",
        f"--data pictures -o out/run {_TRAIN}",
        stopped_codes=(130, 75),
        share=4,
    ),
    Command("swise-doctor", "doctor", "--json", share=2),
    Command("swise info", "swise", "info net.onnx"),
    Command("swise compare", "swise", "compare net.onnx net.onnx --images pictures"),
    Command("swise list", "swise", "list"),
    Command("swise cache", "swise", "cache --clear"),
)
"""Every command; what is killed more often writes more files."""


def command_named(name: str) -> Command:
    """The command with a name."""
    return next(command for command in COMMANDS if command.name == name)


def make_inputs(folder: Path) -> None:
    """Write the inputs of every command into an empty folder."""
    generator = np.random.default_rng(1)
    (folder / "pictures").mkdir(parents=True)
    for name in ("a", "b", "c"):
        noise = generator.integers(0, 256, (9, 8, 3), np.uint8)
        picture = Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)
        picture.save(folder / "pictures" / f"{name}.png")
    save_nearest(folder / "net.onnx")
    (folder / "small.py").write_text(_SMALL_NETWORK, encoding="utf-8")
    if importlib.util.find_spec("av") is not None:
        _write_clip(folder / "clip.mp4")
    for name in ("out", "cache", "tmp"):
        (folder / name).mkdir()


_SMALL_NETWORK = '''
"""Two convolutions and an enlargement by repetition."""

import torch
from torch import nn
from torch.nn import functional


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 12, 3, 1, 1)

    def forward(self, x):
        detail = functional.pixel_shuffle(self.tail(functional.relu(self.head(x))), 2)
        return 0.05 * detail + functional.interpolate(x, scale_factor=2)


def make():
    torch.manual_seed(0)
    return Small().eval()
'''


def _write_clip(path: Path) -> None:
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for index in range(6):
            shade = np.full((24, 32, 3), 40 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(shade, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def environment_of(folder: Path) -> dict[str, str]:
    """Environment variables that keep a command within a workplace."""
    return {
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TMPDIR": str(folder / "tmp"),
        "MPLCONFIGDIR": str(folder.parent / "matplotlib"),
    }


def find_torn(folder: Path) -> list[str]:
    """Results and kept files of a workplace that are not whole, with the reason."""
    torn = []
    for path in sorted(p for name in ("out", "cache") for p in (folder / name).rglob("*")):
        reader = _READERS.get(path.suffix)
        if reader is None or path.name.startswith(".") or not path.is_file():
            continue
        try:
            reader(path)
        except Exception as error:  # noqa: BLE001  # any failure to read means that it is torn
            torn.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    return torn


def _read_picture(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
        assert image.size in ((128, 96), (960, 480)), image.size  # a result, or a chart


def _read_onnx(path: Path) -> None:
    onnx.checker.check_model(onnx.load(path))
    if manifest_path(path).is_file():
        manifest = read_export_manifest(path)
        assert manifest.sha256 == sha256_of(path), "the manifest is of another file"


def _read_json(path: Path) -> None:
    document = json.loads(path.read_bytes())
    if path.name == "bench.json":
        read_benchmark(path)
    assert isinstance(document, dict)


def _read_html(path: Path) -> None:
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


def _read_video(path: Path) -> None:
    import av

    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert frames, "no frame"
    assert {(frame.width, frame.height) for frame in frames} == {(64, 48)}


def _read_engine(path: Path) -> None:
    if manifest_path(path).is_file():  # an engine without one is refused
        check_file(path)


def _read_weights(path: Path) -> None:
    from safetensors.torch import load_file

    assert load_file(path)


_READERS: Mapping[str, Reader] = {
    ".png": _read_picture,
    ".webp": _read_picture,
    ".onnx": _read_onnx,
    ".json": _read_json,
    ".html": _read_html,
    ".mkv": _read_video,
    ".engine": _read_engine,
    ".safetensors": _read_weights,
    ".pt": lambda path: torch.load(path, weights_only=True),
    ".npz": lambda path: dict(np.load(path)),
}


def names_in(folder: Path) -> set[str]:
    """Names of everything that commands left in a workplace."""
    return {
        str(path.relative_to(folder))
        for name in ("out", "cache", "tmp")
        for path in (folder / name).rglob("*")
    }


def copy_inputs(inputs: Path, folder: Path) -> Path:
    """A fresh copy of the inputs, with their times."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(inputs, folder)
    return folder

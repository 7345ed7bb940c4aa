"""Whole small files of every kind, most of them written by the commands themselves."""

import io
import json
import shutil
import struct
from collections.abc import Callable, Collection
from dataclasses import asdict
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image, features
from safetensors.torch import save_file

from swise_deploy.networks.registry import build_network
from swise_deploy.storage.files import sha256_of
from tests.engines.conftest import _repeating_model
from tests.hostile.kills import Workplace
from tests.hostile.workplace import COMMANDS, Command

_MORE = (
    Command(
        "all measurements",
        "bench",
        "net.onnx out/small.onnx --size 16x12 --runs 3 --seconds 0.05 --threads 1 "
        "--images pictures --memory --layers -o out/all.json",
    ),
    Command(
        "chosen runtime", "upscale", "pictures/a.png -o out/auto.png --model net.onnx --threads 1"
    ),
)
_WRITERS = ("export", "build", "bench", "train")


_WITHOUT_COMMANDS = frozenset(
    {"checkpoint .pth", "checkpoint .safetensors", "weights facts", "folders of pairs"}
    | {"PNG", "JPEG", "WebP", "TIFF", "BMP", "GIF", "AVIF"}
    | {"MP4", "MOV", "Matroska", "WebM", "AVI", "MPEG-TS", "FLV"}
)


def needs_commands(parsers: Collection[str]) -> bool:
    """True where samples of some parser are written by commands."""
    return not set(parsers) <= _WITHOUT_COMMANDS


def write_samples(folder: Path) -> None:
    """Write samples that need no command into a folder for each parser, named as the parser.

    A parser whose packages are not installed gets no folder.
    """
    new = _folders_in(folder)
    _write_checkpoints(new)
    _write_pictures(new)
    _write_videos(new)
    _write_pairs(new)


def _folders_in(folder: Path) -> "New":
    def new(parser: str) -> Path:
        number = len(list((folder / parser).glob("*"))) if (folder / parser).is_dir() else 0
        made = folder / parser / str(number)
        made.mkdir(parents=True)
        return made

    return new


def write_samples_by_commands(place: Workplace, folder: Path) -> None:
    """Write the other samples, most of which commands write; see `write_samples`."""
    new = _folders_in(folder)
    place.reset()
    for command in [c for c in COMMANDS if c.script in _WRITERS and c.is_usable()] + list(_MORE):
        ended = place.run(command)
        if ended.code:
            raise RuntimeError(f"{command.name} ended with {ended.code}: {place.text('stderr')}")
    work = place.folder
    out, cache = work / "out", work / "cache" / "swise-deploy"
    _write_graphs(new, [work / "net.onnx", out / "small.onnx"])
    made = new("export manifest")
    shutil.copy(out / "small.onnx", made / "input.onnx")
    shutil.copy(out / "small.json", made / "input.json")
    if (out / "net.engine").is_file():
        _write_engines(new, out, cache)
    _write_documents(new, out)
    _write_caches(new, work, cache)
    _write_trtexec(new, out / "device")
    for parser, names in (
        ("training state", ("state.pt", "config.toml", "log.jsonl")),
        ("training run", ("state.pt", "config.toml", "log.jsonl")),
        ("training log", ("log.jsonl",)),
    ):
        made = new(parser)
        for name in names:
            shutil.copy(out / "run" / name, made)


New = Callable[[str], Path]


def _write_pairs(new: New) -> None:
    made = new("folders of pairs")
    for side, size in (("HR", (32, 24)), ("LR", (16, 12))):
        (made / side).mkdir()
        for name in ("a", "b"):
            Image.new("RGB", size, (9, 99, 199)).save(made / side / f"{name}.png")


def _write_checkpoints(new: New) -> None:
    state = build_network("fsrcnn", 2).state_dict()
    extra = {"step": 3, "name": "x", "lr": 1e-3, "loss": np.float64(0.5), "sizes": [1, 2]}
    documents: list[Any] = [
        state,
        {"params_ema": state, "params": state, **extra},
        {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    ]
    for document in documents:
        torch.save(document, new("checkpoint .pth") / "input.pth")
    torch.save(state, new("checkpoint .pth") / "input.pt", _use_new_zipfile_serialization=False)
    torch.save(documents[1], new("checkpoint .pth") / "input.ckpt")
    save_file(state, new("checkpoint .safetensors") / "input.safetensors", {"scale": "2"})
    made = new("weights facts")
    save_file(state, made / "input.safetensors")
    facts = {"scale": "x2", "model": "fsrcnn"}
    (made / "input.json").write_text(json.dumps(facts), encoding="utf-8")


def _write_graphs(new: New, paths: list[Path]) -> None:
    for path in paths:
        shutil.copy(path, new("ONNX") / "input.onnx")
    for kind, pictures in (("int8", "float"), ("mixed", "uint8"), ("fp16", "float")):
        model = _repeating_model(kind, 2, pictures, ("n", "h", "w"))  # type: ignore[arg-type]
        onnx.save(model, new("ONNX") / "input.onnx")
    for path in paths:
        model = onnx.load(path)
        onnx.save(
            model,
            new("ONNX with external data") / "input.onnx",
            save_as_external_data=True,
            location="input.data",
            size_threshold=0,
        )


def _write_engines(new: New, out: Path, cache: Path) -> None:
    for parser in ("engine manifest", "engine"):
        made = new(parser)
        shutil.copy(out / "net.engine", made / "input.engine")
        shutil.copy(out / "net.json", made / "input.json")
    made = new("kept engine")
    (engine,) = (cache / "engines").rglob("*.engine")
    kept = made / "cache" / "engines" / engine.parent.name
    kept.parent.mkdir(parents=True)
    shutil.copytree(engine.parent, kept)
    kept.chmod(0o700)
    (made / "key.txt").write_text(engine.stem, encoding="utf-8")


def _write_documents(new: New, out: Path) -> None:
    from swise_export.precision.plan import PlannedLayer, PrecisionPlan, write_plan
    from swise_export.precision.search.placement import Step

    layer = PlannedLayer("conv", "int8", 1.5, 1000, -0.01, -0.02)
    plan = PrecisionPlan(
        model="fsrcnn", scale=2, form="deploy", weights_sha256="0" * 64, rest="fp16",
        layers=(layer, layer), mult_adds=2000, method="mse", rounding="moments", num_pictures=4,
        pictures_sha256="1" * 64, max_drift_db=0.05, held_out_drift_db=-0.01,
        drift_by_step=(Step(0.5, -0.01, 1),),
    )  # fmt: skip
    write_plan(new("precision plan") / "input.json", plan)
    for name in ("bench.json", "all.json"):
        shutil.copy(out / name, new("benchmark results") / "input.json")
    shipped = resources.files("swise_deploy.training")
    for parser, folder in (("training settings", "recipes"), ("degradation", "degradations")):
        for item in sorted((shipped / folder).iterdir(), key=lambda item: item.name):
            (new(parser) / "input.toml").write_bytes(item.read_bytes())
    targets = resources.files("swise_engines.targets").joinpath("targets.toml").read_bytes()
    (new("targets") / "input.toml").write_bytes(targets)


def _write_caches(new: New, work: Path, cache: Path) -> None:
    from swise_deploy.evaluation.pairs import Pair
    from swise_deploy.pictures.files import read_rgb
    from swise_engines.choosing.fastest import _CachedChoice
    from swise_engines.upscaling.tiles.receptive_field import cached_overlap
    from swise_engines.upscaling.tiles.tiling import Overlap
    from swise_export.manifest import read_manifest, write_manifest
    from swise_export.precision.calibration import calibrate
    from swise_export.precision.quantised.qdq import find_layers

    made = new("kept interface")
    shutil.copy(work / "net.onnx", made / "input.onnx")
    (made / "cache").mkdir()
    shutil.copytree(cache / "interfaces", made / "cache" / "swise-deploy" / "interfaces")
    cached_overlap(new("kept receptive field") / "input.json", lambda: Overlap(3, step=2))
    choice = _CachedChoice("other", "it is faster", {"one": "slower"})
    path = new("kept verdict") / "input.json"
    path.write_text(json.dumps(asdict(choice)), encoding="utf-8")
    made = new("kept calibration")
    shutil.copy(work / "out" / "small.onnx", made / "model.onnx")
    shutil.copy(work / "pictures" / "a.png", made / "lr.png")
    model, lr = onnx.load(made / "model.onnx"), read_rgb(made / "lr.png")
    calibrate(model, find_layers(model)[0], [Pair("lr", lr, lr)], cache=made / "kept")
    made = new("kept export")
    (made / "kept").mkdir()
    from swise_export.tracing.cache import _stem, _torch_version

    manifest = read_manifest(work / "out" / "small.onnx")
    sha256 = manifest.weights_sha256
    key = {"name": manifest.model, "scale": manifest.scale, "sha256": sha256}
    (made / "key.txt").write_text(json.dumps(key), encoding="utf-8")
    stem = _stem(manifest.model, manifest.scale, sha256, manifest.form)
    kept = made / "kept" / f"{stem}_torch{_torch_version()}.onnx"
    shutil.copy(work / "out" / "small.onnx", kept)
    write_manifest(kept, manifest)
    assert manifest.sha256 == sha256_of(kept)
    for scores in sorted((cache / "bench" / "scores").glob("*.jsonl")):
        shutil.copy(scores, new("kept scores") / "input.jsonl")
    made = new("training pictures")
    for path in (cache / "training").rglob("hr.*"):
        shutil.copy(path, made)


def _write_pictures(new: New) -> None:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8))
    grey = colour.convert("L")
    palette = colour.convert("P")
    deep = Image.fromarray(rng.integers(0, 65_536, (9, 11), np.uint16))
    see_through = colour.copy()
    see_through.putalpha(128)
    exif = Image.Exif()
    exif[274] = 6
    many = {"append_images": [colour, colour], "save_all": True}
    images: dict[str, list[tuple[str, Image.Image, dict[str, Any]]]] = {
        "PNG": [("png", i, {}) for i in (colour, grey, palette, deep, see_through)],
        "JPEG": [
            ("jpg", colour, {"exif": exif, "quality": 90}),
            ("jpg", grey, {}),
            ("jpg", colour.convert("CMYK"), {"progressive": True}),
        ],
        "WebP": [
            ("webp", colour, {"exif": exif}),
            ("webp", see_through, {"lossless": True}),
            ("webp", colour, many),
        ],
        "TIFF": [
            ("tiff", colour, {"compression": c})
            for c in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")
        ]
        + [("tiff", deep, {}), ("tiff", see_through, {}), ("tiff", colour, many)],
        "BMP": [("bmp", i, {}) for i in (colour, grey, palette, see_through)],
        "GIF": [("gif", palette, {}), ("gif", palette, many)],
        "AVIF": [("avif", colour, {}), ("avif", see_through, {})] if features.check("avif") else [],
    }
    for parser, saved in images.items():
        for suffix, image, options in saved:
            content = io.BytesIO()
            name = {"jpg": "jpeg"}.get(suffix, suffix)
            image.save(content, name, **options)
            (new(parser) / f"input.{suffix}").write_bytes(content.getvalue())
    import tifffile

    deep_layouts: list[tuple[tuple[int, ...], Any, dict[str, Any]]] = [
        ((9, 11, 3), np.uint16, {"compression": "zlib", "predictor": True}),
        ((9, 11, 3), np.float32, {}),
        ((3, 32, 32), np.uint16, {"planarconfig": "separate", "tile": (16, 16)}),
        ((9, 11, 3), np.uint16, {"photometric": "cielab"}),
        ((9, 11, 4), np.uint16, {"photometric": "separated", "compression": "zlib"}),
    ]
    for shape, dtype, more in deep_layouts:
        samples = (rng.random(shape) * (1 if dtype is np.float32 else 65_535)).astype(dtype)
        options = {"photometric": "rgb", **more}
        tifffile.imwrite(new("TIFF") / "input.tiff", samples, **options)
    fields = struct.pack("<IiiHHIIiiII", 40, 6, 4, 1, 16, 3, 0, 0, 0, 0, 0)
    pixels = fields + struct.pack("<III", 0xF800, 0x7E0, 0x1F) + rng.bytes(48)
    head = b"BM" + struct.pack("<IHHI", 14 + len(pixels), 0, 0, 14 + len(pixels) - 48)
    (new("BMP") / "input.bmp").write_bytes(head + pixels)


def _write_videos(new: New) -> None:
    try:
        import av
    except ImportError:
        return
    for parser, suffix, codec, sound in (
        ("MP4", ".mp4", "libx264", "aac"),
        ("MOV", ".mov", "mjpeg", "pcm_s16le"),
        ("Matroska", ".mkv", "libx264", "aac"),
        ("Matroska", ".mkv", "ffv1", ""),
        ("WebM", ".webm", "libvpx-vp9", ""),
        ("WebM", ".webm", "libvpx", ""),
        ("AVI", ".avi", "mpeg4", ""),
        ("MPEG-TS", ".ts", "libx264", "aac"),
        ("FLV", ".flv", "libx264", ""),
    ):
        if codec not in av.codecs_available:
            continue
        path = new(parser) / f"input{suffix}"
        with av.open(str(path), "w") as output:
            stream: Any = output.add_stream(codec, rate=10)
            stream.width, stream.height = 32, 24
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            if codec == "libvpx":
                stream.pix_fmt, stream.options = "yuva420p", {"auto-alt-ref": "0"}
                stream.metadata["alpha_mode"] = "1"
            voice: Any = output.add_stream(sound, rate=8000) if sound else None
            for index in range(4):
                shade = np.full((24, 32, 3), 60 * index, np.uint8)
                frame = av.VideoFrame.from_ndarray(shade, format="rgb24")
                frame = frame.reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = index, Fraction(1, 10)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
            if voice is not None:
                wave = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), layout="mono")
                wave.sample_rate, wave.pts = 8000, 0
                output.mux(voice.encode(wave))
                output.mux(voice.encode(None))


def _write_trtexec(new: New, folder: Path) -> None:
    facts = json.loads((folder / "swise.json").read_bytes())
    size = facts["channels"] * facts["height"] * facts["scale"] * facts["width"] * facts["scale"]
    times = [{"computeMs": 1.0 + i, "latencyMs": 2.0 + i, "h2dMs": 0.5} for i in range(6)]
    layers = [{"count": 3}, {"name": "conv", "timeMs": 3.0, "averageMs": 1.0, "percentage": 25.0}]
    output = [{"name": facts["output_name"], "dimensions": "1x3x24x32", "values": [0.5] * size}]
    state = (
        "== /proc/device-tree/model\nJetson\n== x.gpu/cur_freq\n921600000\nNV Power Mode: MAXN\n"
    )
    for parser in ("trtexec results", "trtexec folder"):
        made = new(parser)
        shutil.copytree(folder, made, dirs_exist_ok=True)
        results = made / "results"
        results.mkdir()
        for name, document in (("times", times), ("profile", layers), ("output", output)):
            (results / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
        for name, text in (
            ("before.txt", state),
            ("after.txt", state),
            ("build.log", "&&&& RUNNING TensorRT.trtexec [TensorRT v8601]\n"),
            ("constraints.txt", "obey\n"),
        ):
            (results / name).write_text(text, encoding="utf-8")

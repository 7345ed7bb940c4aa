"""Every parser of files from strangers, as a function of a folder, and the damage to its files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tests.hostile import mutations
from tests.hostile.mutations import Damage


@dataclass(frozen=True, slots=True)
class Parser:
    """A parser of one kind of file.

    Attributes:
        name: Shown in tables; also the folder of its samples.
        read: Reads a sample's folder.
        damage: Damages a file of it.
        pattern: Which of its files are damaged.
    """

    name: str
    read: Callable[[Path], object]
    damage: Damage = mutations.damage_bytes
    pattern: str = "*"


def only_file(folder: Path, pattern: str = "input*") -> Path:
    """The file with a name such as input.png."""
    (path,) = folder.glob(pattern)
    return path


def _read_checkpoint(folder: Path) -> None:
    from swise_bench.verbs.information import inspect_file
    from swise_deploy.checkpoints.foreign import open_any

    path = only_file(folder)
    if path.suffix != ".ckpt":
        inspect_file(path)
    open_any(None, scale=None, weights=path)


def _inspect(folder: Path) -> None:
    from swise_bench.verbs.information import inspect_file

    inspect_file(only_file(folder))


def _read_onnx(folder: Path) -> None:
    import numpy as np

    from swise_bench.verbs.information import inspect_file
    from swise_deploy.runner import batch_from_images
    from swise_engines.tensorrt.onnx_source import read_source
    from swise_export.runtimes.onnxruntime import OnnxRunner

    path = folder / "input.onnx"
    inspect_file(path)
    with OnnxRunner(path, threads=1) as runner:
        width, height = runner.file.interface.size or (48, 32)
        if width * height < 1 << 14:
            multiple = runner.file.interface.multiple
            sides = [-(-side // multiple) * multiple for side in (height, width)]
            pictures = np.zeros((runner.file.interface.batch or 1, *sides, 3), np.uint8)
            runner.infer(batch_from_images(pictures, runner.io))
    read_source(path)


def _read_export_manifest(folder: Path) -> None:
    from swise_export.manifest import read_manifest

    read_manifest(folder / "input.onnx")
    _inspect_onnx(folder)


def _inspect_onnx(folder: Path) -> None:
    from swise_bench.verbs.information import inspect_file

    inspect_file(folder / "input.onnx")


def _read_engine(folder: Path) -> None:
    from swise_bench.verbs.information import inspect_file
    from swise_engines.running.checks import read_engine

    read_engine(folder / "input.engine")
    inspect_file(folder / "input.engine")


def _read_results(folder: Path) -> None:
    from swise_bench.reports.verdict import summarize
    from swise_bench.results.document import read_benchmark
    from swise_bench.results.regression import (
        compare_benchmarks,
        describe_changes,
        differing_conditions,
    )

    benchmark = read_benchmark(only_file(folder))
    summarize(benchmark)
    differing_conditions(benchmark, benchmark)
    changes = compare_benchmarks(benchmark, benchmark, max_regress=0.05)
    describe_changes(changes, max_regress=0.05)


def _read_plan(folder: Path) -> None:
    from swise_export.precision.plan import read_plan

    read_plan(only_file(folder))
    _inspect(folder)


def _read_settings(folder: Path) -> None:
    from swise_deploy.training.settings import config_from_layers, settings_from_file

    path = only_file(folder)
    config_from_layers({"recipe": {"data": "x", "out": "y"}, str(path): settings_from_file(path)})


def _read_degradation(folder: Path) -> None:
    import numpy as np

    from swise_deploy.training.data.degradation import (
        degrade,
        generator_of_name,
        read_degradation,
    )

    found = read_degradation(str(only_file(folder)))
    degrade(np.zeros((32, 32, 3), np.uint8), 2, found, generator_of_name("x"))


def _read_targets(folder: Path) -> None:
    from swise_engines.targets.catalogue import targets_from_toml

    path = only_file(folder)
    if path.is_file():  # the shipped file, which nobody replaces by a folder
        targets_from_toml(path.read_bytes()[: 1 << 20].decode("utf-8", "replace"))


def _read_interface_cache(folder: Path) -> None:
    from swise_export.interface.onnx_file import read_onnx_file

    _as_cache(folder)
    read_onnx_file(folder / "input.onnx")


def _as_cache(folder: Path) -> None:
    """Use the folder `cache` of a sample as the user's cache."""
    import os

    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")


def _read_receptive_field(folder: Path) -> None:
    from swise_engines.upscaling.tiles.receptive_field import cached_overlap

    cached_overlap(only_file(folder), lambda: None)


def _read_verdict(folder: Path) -> None:
    from swise_engines.choosing.candidates import Candidate
    from swise_engines.choosing.fastest import _cached_choice

    candidates = [cast("Candidate", SimpleNamespace(label=label)) for label in ("one", "other")]
    _cached_choice(only_file(folder), candidates)


def _read_calibration(folder: Path) -> None:
    import onnx

    from swise_deploy.evaluation.pairs import Pair
    from swise_deploy.pictures.files import read_rgb
    from swise_export.precision.calibration import calibrate
    from swise_export.precision.quantised.qdq import find_layers

    model = onnx.load(folder / "model.onnx")
    lr = read_rgb(folder / "lr.png")
    calibrate(model, find_layers(model)[0], [Pair("lr", lr, lr)], cache=folder / "kept")


def _read_kept_export(folder: Path) -> None:
    import json

    from swise_export.tracing.cache import find_export

    key = json.loads((folder / "key.txt").read_text(encoding="utf-8"))
    find_export(folder / "kept", key["name"], key["scale"], weights_sha256=key["sha256"])


def _read_kept_engine(folder: Path) -> None:
    from swise_engines.running.engine_cache import EngineCache

    key = (folder / "key.txt").read_text(encoding="utf-8")
    EngineCache(folder / "cache").find(key, {"backend": "tensorrt_rtx"})


def _read_scores(folder: Path) -> None:
    from swise_bench.measuring.quality import _read_store

    _read_store(only_file(folder))


def _read_training_cache(folder: Path) -> None:
    from swise_deploy.training.data.picture_store import open_store

    found = open_store(folder / "hr")
    for index in range(len(found[0].entries) if found is not None else 0):
        assert found is not None
        found[0].picture(index).sum()


def _read_picture(folder: Path) -> None:
    from swise_deploy.pictures.files import read_rgb
    from swise_engines.upscaling.batch import read_file
    from swise_engines.upscaling.pictures.codecs import decode_picture, encode_picture

    path = only_file(folder)
    read_rgb(path)
    picture = decode_picture(read_file(path))
    if picture.colour.size < 1 << 16:
        encode_picture(picture, "png")


def _read_video(folder: Path) -> None:
    from swise_engines.upscaling.video.reader import VideoReader

    with VideoReader(only_file(folder)) as reader:
        for number, _event in enumerate(reader.events()):
            if number > 1000:
                break


def _read_trtexec(folder: Path) -> None:
    from swise_bench.measuring.trtexec import result_from_folder

    result_from_folder(folder)


def _read_state(folder: Path) -> None:
    from swise_deploy.training.run.run_files import read_config, read_log, read_state

    read_config(folder)
    read_log(folder)
    read_state(folder)


def _rewind_log(folder: Path) -> None:
    from swise_deploy.training.run.run_files import rewind_log

    rewind_log(folder, 1)


def _read_pairs(folder: Path) -> None:
    from swise_deploy.evaluation.pairs import read_pairs
    from swise_deploy.pictures.folders import find_images

    hr, lr = find_images(folder / "HR"), find_images(folder / "LR", ground_truth=False)
    read_pairs(hr, 2, lr_paths=lr)


def _read_weights_facts(folder: Path) -> None:
    from swise_bench.table1 import stated_scales

    stated_scales(folder / "input.safetensors")


_DOCUMENT: Mapping[str, Any] = {"damage": mutations.damage_json, "pattern": "*.json"}

PARSERS: tuple[Parser, ...] = (
    Parser("checkpoint .pth", _read_checkpoint, mutations.damage_archive),
    Parser("checkpoint .safetensors", _read_checkpoint),
    Parser("ONNX", _read_onnx, mutations.damage_onnx),
    Parser("ONNX with external data", _read_onnx, mutations.damage_onnx, "input.*"),
    Parser("export manifest", _read_export_manifest, **_DOCUMENT),
    Parser("engine manifest", _read_engine, **_DOCUMENT),
    Parser("engine", _read_engine, pattern="*.engine"),
    Parser("precision plan", _read_plan, **_DOCUMENT),
    Parser("benchmark results", _read_results, **_DOCUMENT),
    Parser("weights facts", _read_weights_facts, **_DOCUMENT),
    Parser("training settings", _read_settings, mutations.damage_toml),
    Parser("degradation", _read_degradation, mutations.damage_toml),
    Parser("targets", _read_targets, mutations.damage_toml),
    Parser("kept interface", _read_interface_cache, mutations.damage_json, "cache/**/*.json"),
    Parser("kept receptive field", _read_receptive_field, **_DOCUMENT),
    Parser("kept verdict", _read_verdict, **_DOCUMENT),
    Parser("kept calibration", _read_calibration, mutations.damage_archive, "kept/*"),
    Parser("kept export", _read_kept_export, mutations.damage_bytes, "kept/*"),
    Parser("kept engine", _read_kept_engine, mutations.damage_bytes, "cache/**/*.*"),
    Parser("kept scores", _read_scores, mutations.damage_json),
    Parser("training pictures", _read_training_cache, mutations.damage_json, "hr.*"),
    Parser("PNG", _read_picture, mutations.damage_png),
    Parser("JPEG", _read_picture),
    Parser("WebP", _read_picture),
    Parser("TIFF", _read_picture),
    Parser("BMP", _read_picture),
    Parser("GIF", _read_picture),
    Parser("AVIF", _read_picture),
    Parser("folders of pairs", _read_pairs, pattern="*R/*"),
    Parser("MP4", _read_video),
    Parser("MOV", _read_video),
    Parser("Matroska", _read_video),
    Parser("WebM", _read_video),
    Parser("AVI", _read_video),
    Parser("MPEG-TS", _read_video),
    Parser("FLV", _read_video),
    Parser("trtexec results", _read_trtexec, mutations.damage_json, "results/*"),
    Parser("trtexec folder", _read_trtexec, mutations.damage_json, "*.*"),
    Parser("training state", _read_state, mutations.damage_archive, "state.pt"),
    Parser("training run", _read_state, mutations.damage_toml, "config.toml"),
    Parser("training log", _rewind_log, mutations.damage_json, "log.jsonl"),
)

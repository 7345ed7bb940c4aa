"""The quality of an engine: its drift against its ONNX file, and the limit of that drift."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from swise_deploy.errors import BackendMissingError, InputError, QualityGateError, SwiseError
from swise_deploy.evaluation.pairs import Pair, pair_from_hr
from swise_deploy.pictures.files import RgbImage, read_readable
from swise_deploy.pictures.folders import find_images, picture_names, sample_paths
from swise_deploy.runner import Runner
from swise_engines.building.build import Built
from swise_engines.cuda.boundary import GpuAtHand
from swise_engines.running.checks import check_device
from swise_engines.running.runner import EngineRunner
from swise_engines.tensorrt.manifest import EngineManifest, write_manifest
from swise_engines.tensorrt.profiles import Profile
from swise_export.manifest import manifest_path
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.verification.budget import DriftBudget
from swise_export.verification.drift import check_gate, measure_drift


def reason_not_to_run(manifest: EngineManifest, gpu: GpuAtHand) -> str:
    """Reason why an engine cannot run on the GPU at hand; "" if it can."""
    if gpu.device is None:
        return gpu.reason
    try:
        check_device(Path(manifest.onnx_name), manifest, gpu.device)
    except SwiseError as error:
        return str(error)
    return ""


def verify_built(
    built: Built,
    onnx: Path,
    gpu: GpuAtHand,
    *,
    verify: bool | None,
    images: Path | None,
    budget: DriftBudget,
    notify: Callable[[str], None],
) -> Built:
    """Measure an engine's drift where it can run, and write it into its manifest.

    Args:
        built: The engine.
        onnx: The file that it was built from.
        gpu: The GPU of this machine.
        verify: True requires it, False omits it, None does it where the engine can run.
        images: A folder of pictures; None takes the shipped ones.
        budget: Drift that is allowed.
        notify: Called with messages for the user.

    Raises:
        BackendMissingError: It is required, and the engine cannot run here.
        InputError: No picture can be read or fits the engine.
        QualityGateError: More was lost; the engine and its manifest are deleted.
    """
    reason = reason_not_to_run(built.manifest, gpu)
    if verify is False:
        reason = "--no-verify was given"
    elif verify and reason:
        raise BackendMissingError(f"--verify has to run the engine: {reason}")
    if reason:
        return _with_drift(built, built.manifest.with_drift(None, f"not measured: {reason}"))
    notify("measuring drift against ONNX Runtime")
    pairs = pairs_that_fit(
        read_readable(sample_paths() if images is None else find_images(images)),
        built.manifest.profiles,
        built.manifest.scale,
    )
    with (
        EngineRunner(built.path, cuda=gpu.cuda) as engine,
        OnnxRunner(onnx, as_device=True) as reference,
    ):
        return check_quality(built, engine, reference, pairs, budget=budget)


def check_quality(
    built: Built, engine: Runner, reference: Runner, pairs: Sequence[Pair], *, budget: DriftBudget
) -> Built:
    """Compare two active runners; keep the engine with its drift, or delete it.

    Raises:
        QualityGateError: More was lost than allowed, or what comes out is not finite.
    """
    try:
        drift, _ = measure_drift(engine, reference, pairs)
        check_gate(drift, budget)
    except QualityGateError:
        built.path.unlink(missing_ok=True)
        manifest_path(built.path).unlink(missing_ok=True)
        raise
    document = {"reference": reference.name, **asdict(drift)}
    return _with_drift(built, built.manifest.with_drift(document))


def _with_drift(built: Built, manifest: EngineManifest) -> Built:
    write_manifest(built.path, manifest)
    return replace(built, manifest=manifest)


def pairs_that_fit(
    pictures: dict[Path, RgbImage], profiles: Sequence[Profile], scale: int
) -> list[Pair]:
    """Pairs whose low resolution the engine takes: large pictures are cut to their middle.

    Raises:
        InputError: Every picture is too small for the engine.
    """
    profile = max(profiles, key=lambda p: p.max.width * p.max.height)
    pairs = []
    names = picture_names([*pictures])
    for path, picture in pictures.items():
        height, width = (side // scale for side in picture.shape[:2])
        if width >= profile.min.width and height >= profile.min.height:
            middle = _middle(
                picture,
                min(height, profile.max.height) * scale,
                min(width, profile.max.width) * scale,
            )
            pairs.append(pair_from_hr(names[path], middle, scale))
    if not pairs:
        raise InputError(
            f"none of {len(pictures)} pictures is large enough for an engine that takes {profile}. "
            "Give larger ones with --images, or leave the check out with --no-verify"
        )
    return pairs


def _middle(picture: RgbImage, height: int, width: int) -> RgbImage:
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return np.ascontiguousarray(picture[top : top + height, left : left + width])

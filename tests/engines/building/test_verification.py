"""Drift and gate. Two ONNX files stand on both sides: the comparison knows only runners."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from swise_deploy.errors import BackendMissingError, InputError, QualityGateError
from swise_engines.building.verification import (
    check_quality,
    pairs_that_fit,
    reason_not_to_run,
    verify_built,
)
from swise_engines.cuda.boundary import Device, GpuAtHand
from swise_engines.tensorrt.manifest import read_manifest
from swise_engines.tensorrt.profiles import Extent, Profile, profile_from_sizes
from swise_export.manifest import manifest_path
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.verification.budget import DriftBudget
from tests.engines.conftest import HostCuda, manifest_of

RANGE = Profile(Extent(1, 8, 8), Extent(1, 16, 12), Extent(1, 32, 24))


@pytest.fixture
def built(engine, sm86):
    return replace(sm86, path=engine)


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_pictures_are_cut_to_what_the_engine_takes():
    pictures = {Path("large"): photo(200, 300), Path("small"): photo(21, 40)}
    pairs = {pair.name: pair for pair in pairs_that_fit(pictures, [RANGE], 2)}
    assert pairs["large"].lr.shape == (24, 32, 3)
    assert pairs["small"].lr.shape == (10, 20, 3)
    np.testing.assert_array_equal(pairs["large"].hr, pictures[Path("large")][76:124, 118:182])


def test_an_engine_of_one_size_gets_that_size():
    (pair,) = pairs_that_fit({Path("a"): photo(90, 90)}, [profile_from_sizes([(20, 16)])], 3)
    assert pair.lr.shape == (16, 20, 3)


def test_pictures_that_are_all_too_small_are_refused():
    with pytest.raises(InputError, match="none of 1 pictures is large enough"):
        pairs_that_fit({Path("a"): photo(15, 90)}, [RANGE], 2)


def test_the_drift_goes_into_the_manifest(built, make_onnx):
    pairs = pairs_that_fit({Path("a"): photo(48, 64)}, [RANGE], 2)
    with OnnxRunner(make_onnx("int8")) as coarse, OnnxRunner(make_onnx("fp32")) as full:
        measured = check_quality(built, coarse, full, pairs, budget=DriftBudget(1.0))
    drift = manifest_of(built.path).drift
    assert drift is not None
    assert drift == measured.manifest.drift
    assert drift["images"] == 1
    assert str(drift["reference"]).startswith("onnxruntime")
    # Steps of 1/127 hold a pixel of [0, 1] to within half a step.
    largest = drift["max_abs"]
    assert isinstance(largest, float)
    assert 0 < largest <= 0.5 / 127 + 1e-6


def test_an_engine_that_loses_too_much_is_not_left_behind(built, make_onnx):
    pairs = pairs_that_fit({Path("a"): photo(48, 64)}, [RANGE], 2)
    with (
        OnnxRunner(make_onnx("int8")) as coarse,
        OnnxRunner(make_onnx("fp32")) as full,
        pytest.raises(QualityGateError, match="lost"),
    ):
        check_quality(built, coarse, full, pairs, budget=DriftBudget(-5.0))
    assert not built.path.exists()
    assert not manifest_path(built.path).exists()


@pytest.mark.parametrize(("artefact", "reference"), [("uint8",) * 2, ("float", "uint8")])
def test_8_bit_pictures_are_compared_as_pictures(built, make_onnx, artefact, reference):
    pairs = pairs_that_fit({Path("a"): photo(48, 64)}, [RANGE], 2)
    files = [make_onnx("fp32", io=io) for io in (artefact, reference)]
    with OnnxRunner(files[0]) as one, OnnxRunner(files[1]) as other:
        drift = check_quality(built, one, other, pairs, budget=DriftBudget(0.0)).manifest.drift
    assert drift is not None
    assert drift["max_abs"] == 0
    assert drift["psnr_y_db"] == 0


@pytest.mark.parametrize(
    ("gpu", "says"),
    [
        (GpuAtHand(None, "no driver"), "no driver"),
        (None, r"built for SM 8\.6, but this is a Test GPU of SM 8\.9"),
    ],
)
def test_where_it_cannot_run_the_reason_is_kept_and_verify_fails(built, gpu, says):
    if gpu is None:
        other = HostCuda()
        other.device = Device("Test GPU", "8.9", is_integrated=False, driver_cuda="12.6")
        gpu = GpuAtHand(other)
    verify = partial(verify_built, images=None, budget=DriftBudget(0.05), notify=print)
    kept = verify(built, Path("absent.onnx"), gpu, verify=None)
    assert reason_not_to_run(built.manifest, gpu) in kept.manifest.drift_note
    assert read_manifest(built.path) == kept.manifest
    with pytest.raises(BackendMissingError, match=says):
        verify(built, Path("absent.onnx"), gpu, verify=True)


def test_no_verify_is_the_reason_in_the_manifest(built):
    verify = partial(verify_built, images=None, budget=DriftBudget(0.05), notify=print)
    kept = verify(built, Path("a"), GpuAtHand(None, "none"), verify=False)
    assert kept.manifest.drift_note == "not measured: --no-verify was given"

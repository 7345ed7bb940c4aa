import json
from pathlib import Path

import pytest

from swise_deploy.errors import InputError
from swise_engines.tensorrt.manifest import manifest_from_dict, read_manifest, write_manifest
from swise_export.manifest import manifest_path


def test_a_manifest_survives_json(engine):
    manifest = read_manifest(engine)
    document = json.loads(json.dumps(manifest.to_dict()))
    assert manifest_from_dict(document, Path("x.json")) == manifest


def test_a_real_build_is_described(engine, sm86):
    manifest = read_manifest(engine)
    assert manifest == sm86.manifest
    assert manifest.model == "tiny"
    assert (manifest.scale, manifest.io) == (2, "float")
    assert (manifest.input_name, manifest.output_name) == ("lr", "sr")
    assert manifest.precision_asked == "fp16"
    assert manifest.precision_found.share("fp16") == 1.0
    assert manifest.precision_read_back is None
    assert manifest.read_back_note == "not read back: this test runs without one"
    assert manifest.sms == ("8.6",)
    assert manifest.backend == "tensorrt_rtx"
    assert manifest.source["precision"] == "fp16"
    assert manifest.build_seconds > 0


def test_drift_is_added_without_touching_the_rest(engine):
    manifest = read_manifest(engine)
    measured = manifest.with_drift({"psnr_y_db": -0.01})
    write_manifest(engine, measured)
    assert read_manifest(engine) == measured
    assert read_manifest(engine).with_drift(None, manifest.drift_note) == manifest


def test_an_engine_without_profiles_or_scale_is_none(engine):
    document = read_manifest(engine).to_dict()
    with pytest.raises(InputError, match="scale 0"):
        manifest_from_dict({**document, "scale": 0}, manifest_path(engine))

import json

import pytest

from swise_deploy.errors import InputError
from swise_engines.tensorrt.manifest import read_manifest, write_manifest
from swise_export.manifest import manifest_path
from tests.engines.conftest import manifest_of


def test_a_manifest_survives_json(engine):
    manifest = manifest_of(engine)
    copy = engine.with_name("copy.engine")
    write_manifest(copy, manifest)
    assert read_manifest(copy) == manifest


def test_a_real_build_is_described(engine, sm86):
    manifest = manifest_of(engine)
    assert manifest == sm86.manifest
    assert manifest.model == "tiny"
    assert (manifest.scale, manifest.io) == (2, "float")
    assert (manifest.interface.input.name, manifest.interface.output.name) == ("lr", "sr")
    assert manifest.precision_asked == "fp16"
    assert manifest.precision_found.share("fp16") == 1.0
    assert manifest.precision_read_back is None
    assert manifest.read_back_note == "not read back: this test runs without one"
    assert manifest.sms == ("8.6",)
    assert manifest.backend == "tensorrt_rtx"
    assert manifest.source["precision"] == "fp16"
    assert manifest.build_seconds > 0


def test_drift_is_added_without_touching_the_rest(engine):
    manifest = manifest_of(engine)
    measured = manifest.with_drift({"psnr_y_db": -0.01})
    write_manifest(engine, measured)
    assert read_manifest(engine) == measured
    assert manifest_of(engine).with_drift(None, manifest.drift_note) == manifest


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"profiles": []}, "profile"),
        ({"engine_bytes": "many"}, "engine_bytes"),
        ({"engine_bytes": -1}, "engine_bytes"),
        ({"sms": "8.6"}, "sms"),
        ({"sms": [8.6]}, "sms"),
        ({"backend": "evilmod"}, "backend"),
        ({"onnx_sha256": "short"}, "onnx_sha256"),
        ({"interface": None}, "interface"),
        ({"drift": "none"}, "drift"),
        ({"versions": {"a": 1}}, "versions"),
        ({"colour": "red"}, "colour"),
        ({"schema_version": 1}, "schema_version"),
        ({"kind": "onnx"}, "kind"),
    ],
)
def test_a_manifest_of_wrong_types_or_values_is_refused_by_name(engine, change, named):
    path = manifest_path(engine)
    document = manifest_of(engine).to_dict()
    path.write_text(json.dumps({**document, **change}))
    with pytest.raises(InputError, match=named) as refused:
        read_manifest(engine)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("scale", [0, -2, "two", 2.5, None])
def test_a_scale_that_is_none_is_refused(engine, scale):
    path = manifest_path(engine)
    document = json.loads(path.read_text())
    document["interface"]["scale"] = scale
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="scale"):
        read_manifest(engine)

"""The names that rooms export, and the names that moved."""

import importlib
import importlib.util
import subprocess
import sys
import warnings

import pytest

from swise_deploy.public_names import MOVED_ATTRIBUTES, MOVED_MODULES

ROOMS = ("swise_deploy", "swise_export", "swise_engines", "swise_bench")

PROMISED_BEFORE = [
    "swise_deploy.images.read_rgb",
    "swise_deploy.images.write_image",
    "swise_deploy.images.find_images",
    "swise_deploy.images.sample_paths",
    "swise_deploy.imresize.imresize",
    "swise_deploy.metrics.quality",
    "swise_deploy.metrics.psnr",
    "swise_deploy.metrics.ssim",
    "swise_deploy.protocol.read_pairs",
    "swise_deploy.protocol.evaluate",
    "swise_deploy.protocol.mean_quality",
    "swise_deploy.models.checkpoint.open_network",
    "swise_deploy.models.foreign.open_any",
    "swise_deploy.models.swisenet.ScaleWiseUpsample",
    "swise_deploy.models.torch_runner.TorchRunner",
    "swise_export.exporting.export_onnx",
    "swise_export.verified.export_verified",
    "swise_export.export_config.ExportConfig",
    "swise_export.deploy_form.deploy_form",
    "swise_export.onnx_runner.OnnxRunner",
    "swise_export.openvino_runner.OpenVinoRunner",
    "swise_export.drift.measure_drift",
    "swise_engines.building.build_engine",
    "swise_engines.planning.BuildOptions",
    "swise_engines.targets.find_target",
    "swise_engines.engine_runner.EngineRunner",
    "swise_engines.upscaler.Upscaler",
]
"""Every name that docs/library.md promised before the folders, and that lies elsewhere now."""

STILL_THERE = [
    "swise_deploy.training.config.TrainConfig",
    "swise_deploy.training.loop.train",
    "swise_deploy.runner.Runner",
    "swise_deploy.runner.upscale",
    "swise_deploy.timing.time_calls",
    "swise_deploy.timing.ratio",
    "swise_deploy.errors.SwiseError",
    "swise_bench.benchmark.run_benchmark",
    "swise_export.counting.count_onnx",
    "swise_bench.benchmark.Settings",
]


@pytest.mark.parametrize("name", PROMISED_BEFORE)
def test_a_name_that_moved_is_found_with_a_warning_that_states_the_new_one(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{name} has moved: use ") as warned:
        found = getattr(importlib.import_module(module), attribute)
    new_module, _, new_name = str(warned[0].message).rpartition(" ")[2].rpartition(".")
    assert new_name == attribute
    assert getattr(importlib.import_module(new_module), attribute) is found


@pytest.mark.parametrize("name", STILL_THERE)
def test_a_name_that_stays_gives_no_warning(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert getattr(importlib.import_module(module), attribute)


def test_a_name_that_never_was_is_an_import_error() -> None:
    for module in ("swise_deploy.images", "swise_engines.building", "swise_deploy"):
        with pytest.raises(AttributeError, match="nothing"):
            _ = importlib.import_module(module).nothing
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("swise_deploy.models.nothing")


def test_every_module_that_a_moved_name_leads_to_exists() -> None:
    news = [new for modules in MOVED_MODULES.values() for new in modules]
    news += [new for names in MOVED_ATTRIBUTES.values() for new in names.values()]
    assert all(importlib.util.find_spec(new) is not None for new in news)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_exports_its_public_names(room: str) -> None:
    package = importlib.import_module(room)
    for name, module in package.PUBLIC.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)


def test_importing_the_rooms_loads_nothing_heavy() -> None:
    code = (
        f"import sys, {', '.join(ROOMS)}\n"
        "print(sorted({'torch', 'numpy', 'onnx', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

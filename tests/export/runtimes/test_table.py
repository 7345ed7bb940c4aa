"""The table of runtimes against the modules that it names."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from swise_deploy.errors import InputError
from swise_deploy.runner import Runner, upscale
from swise_export.runtimes.table import (
    RUNTIMES,
    Runtime,
    find_runtime,
    is_installed,
    load_runtime,
    open_runner,
    runner_choices,
    runtimes_for,
)


def functions_of(runtime: Runtime) -> set[str]:
    """Names of the functions that a runtime's module defines; it is not imported."""
    spec = importlib.util.find_spec(runtime.module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", [n for n, r in RUNTIMES.items() if not r.is_program])
def test_a_row_names_a_module_with_every_function_of_a_runtime(name: str) -> None:
    runtime = RUNTIMES[name]
    functions = functions_of(runtime)
    assert {"open_runner", "describe", "unusable_reason"} <= functions
    assert ("profile" in functions) >= runtime.has_profile


def test_only_runtimes_on_a_cpu_time_layers() -> None:
    """A profile on the CPU does not describe a runtime that computes on a GPU."""
    profiled = [runtime for runtime in RUNTIMES.values() if runtime.has_profile]
    assert profiled
    assert {runtime.device for runtime in profiled} == {"cpu"}
    assert {runtime.takes for runtime in profiled} == {"onnx"}


def test_the_first_automatic_runtime_is_that_of_the_smallest_extra() -> None:
    first = next(runtime for runtime in RUNTIMES.values() if runtime.is_automatic)
    assert (first.takes, first.extra) == ("onnx", "cpu")
    assert runner_choices()[:2] == ("auto", "onnxruntime")
    assert set(runner_choices()[1:]) <= set(runtimes_for("onnx"))


def test_an_unknown_runtime_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="Did you mean 'openvino'"):
        find_runtime("openvno")


@pytest.mark.parametrize("name", ["openvno", *(n for n, r in RUNTIMES.items() if r.is_program)])
def test_only_a_runtime_of_the_table_with_a_runner_is_opened(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=name):
        open_runner(name, tmp_path / "net.engine")


@pytest.mark.parametrize(
    "name", [n for n, r in runtimes_for("onnx").items() if r.device == "cpu" and is_installed(r)]
)
def test_every_installed_runtime_states_its_fields_and_agrees_on_pixels(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "double.onnx"
    resize = helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest")
    sizes: list[int | str] = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        [resize],
        "double",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", 3, "h2", "w2"])],
        [helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 2, 2])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    with open_runner(name, path, threads=1) as runner:
        assert isinstance(runner, Runner)
        assert (runner.runtime, runner.device) == (name, RUNTIMES[name].device)
        assert (runner.form, runner.scale) == ("", 2)
        np.testing.assert_array_equal(upscale(runner, image), image.repeat(2, 0).repeat(2, 1))
    assert load_runtime(name).describe()

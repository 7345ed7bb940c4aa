"""Files of other programs in every runtime: their pictures against hand arithmetic."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.runner import upscale
from swise_export.counting import count_onnx
from swise_export.graph.limits import MAX_NODES
from swise_export.graph.loading import sha256_of_onnx
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.interface.ports import Interface, Port
from swise_export.runtimes.table import is_installed, open_runner, runtimes_for

RUNNERS = [name for name in ("onnxruntime", "openvino") if is_installed(runtimes_for("onnx")[name])]
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    *,
    dims: Sequence[str | int] = ("n", 3, "h", "w"),
    taken: str = "float32",
    given: str = "float32",
    constants: Mapping[str, NDArray[np.generic]] | None = None,
    outputs: Sequence[str] = ("sr",),
    opset: int = 18,
) -> Path:
    """A file of these nodes from `lr` to `outputs`."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("lr", TYPES[taken], dims)],
        [helper.make_tensor_value_info(n, TYPES[given], ["a", "b", "c", "d"]) for n in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def repeating(path: Path, taken: Port, given: Port, *, scale: int = 2, shift: float = 0.0) -> Path:
    """A file that repeats pixels and adds `shift` of white, in the forms of two ports."""
    nodes = [helper.make_node("Cast", ["lr"], ["floats"], to=TensorProto.FLOAT)]
    value = "floats"
    if taken.layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [value], ["first"], perm=[0, 3, 1, 2]))
        value = "first"
    nodes += [
        helper.make_node("Mul", [value, "gain"], ["gained"]),
        helper.make_node("Add", ["gained", "shift"], ["shifted"]),
        helper.make_node("Resize", ["shifted", "", "scales"], ["large"], mode="nearest"),
    ]
    value = "large"
    if given.dtype == "uint8":
        nodes += [
            helper.make_node("Round", [value], ["rounded"]),
            helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        ]
        value = "clipped"
    if given.layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [value], ["last"], perm=[0, 2, 3, 1]))
        value = "last"
    nodes.append(helper.make_node("Cast", [value], ["sr"], to=TYPES[given.dtype]))
    dims: list[str | int] = ["n", "h", "w", taken.channels]
    return save(
        path,
        nodes,
        dims=dims if taken.layout == "NHWC" else ["n", taken.channels, "h", "w"],
        taken=taken.dtype,
        given=given.dtype,
        constants={
            "gain": np.array(given.white / taken.white, np.float32),
            "shift": np.array(shift * given.white, np.float32),
            "scales": np.array([1, 1, scale, scale], np.float32),
            "low": np.array(0, np.float32),
            "high": np.array(255, np.float32),
        },
    )


def picture(height: int = 9, width: int = 13) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(20, 180, (height, width, 3), np.uint8)


FLOAT = Port("lr", "float32")
FORMS = {
    "float32 NHWC": (Port("lr", "float32", "NHWC"), Port("sr", "float32", "NHWC")),
    "float16": (Port("lr", "float16"), Port("sr", "float16")),
    "float64": (Port("lr", "float64"), Port("sr", "float64")),
    "uint8 NCHW": (Port("lr", "uint8", white=255.0), Port("sr", "uint8", white=255.0)),
    "uint8 NHWC": (
        Port("lr", "uint8", "NHWC", white=255.0),
        Port("sr", "uint8", "NHWC", white=255.0),
    ),
    "0..255": (Port("lr", "float32", white=255.0), Port("sr", "float32", white=255.0)),
    "0..1 to 0..255": (FLOAT, Port("sr", "float32", white=255.0)),
    "float to uint8": (FLOAT, Port("sr", "uint8", white=255.0)),
    "uint8 NHWC to float NCHW": (Port("lr", "uint8", "NHWC", white=255.0), Port("sr", "float32")),
    "uint8 to float 0..255": (
        Port("lr", "uint8", "NHWC", white=255.0),
        Port("sr", "float32", "NHWC", white=255.0),
    ),
    "NHWC to NCHW": (Port("lr", "float32", "NHWC"), Port("sr", "float32")),
    "RGB with opacity": (
        Port("lr", "float32", channels=4),
        Port("sr", "float32", channels=4),
    ),
    "ordinary": (FLOAT, Port("sr", "float32")),
}


@pytest.mark.parametrize("runner_name", RUNNERS)
@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_any_form_gives_its_picture(form: str, runner_name: str, tmp_path: Path) -> None:
    taken, given = FORMS[form]
    path = repeating(tmp_path / "file.onnx", taken, given, shift=51 / 255)
    image = picture()
    expected = image.repeat(2, 0).repeat(2, 1) + 51
    with open_runner(runner_name, path, threads=1) as runner:
        sr = upscale(runner, image)
    # Half a value of 255 is lost in float16; the other forms are exact.
    assert np.abs(sr.astype(int) - expected).max() <= (1 if "16" in form else 0)
    interface = read_onnx_file(path).interface
    assert (interface.input, interface.output) == (taken, given)


@pytest.mark.parametrize("runner_name", RUNNERS)
def test_a_float_nhwc_file_that_adds_a_fifth_gives_151_for_100(
    runner_name: str, tmp_path: Path
) -> None:
    taken, given = FORMS["float32 NHWC"]
    path = repeating(tmp_path / "file.onnx", taken, given, shift=0.2)
    with open_runner(runner_name, path, threads=1) as runner:
        sr = upscale(runner, np.full((8, 8, 3), 100, np.uint8))
    assert sr.shape == (16, 16, 3)
    assert (sr == 151).all()


@pytest.mark.parametrize("runner_name", RUNNERS)
def test_luma_goes_through_a_file_of_one_channel_and_chroma_is_enlarged(
    runner_name: str, tmp_path: Path
) -> None:
    ports = Port("lr", "float32", channels=1), Port("sr", "float32", channels=1)
    path = repeating(tmp_path / "luma.onnx", *ports, shift=10 / 255)
    grey = np.repeat(picture()[:, :, :1], 3, axis=2)
    with open_runner(runner_name, path, threads=1) as runner:
        sr = upscale(runner, grey)
        coloured = upscale(runner, np.full((8, 8, 3), (200, 100, 50), np.uint8))
    expected = grey.repeat(2, 0).repeat(2, 1) + 10
    assert np.abs(sr.astype(int) - expected).max() <= 1
    # Ten more of luma is ten more of R, G and B.
    assert np.abs(coloured.astype(int) - (210, 110, 60)).max() <= 1


def windowed(path: Path, window: int) -> Path:
    """Windows are cut and put together again: sides have to be multiples of the window."""
    to_depth = helper.make_node("SpaceToDepth", ["lr"], ["deep"], blocksize=window)
    back = helper.make_node("DepthToSpace", ["deep"], ["same"], blocksize=window)
    resize = helper.make_node("Resize", ["same", "", "scales"], ["sr"], mode="nearest")
    constants = {"scales": np.array([1, 1, 3, 3], np.float32)}
    return save(path, [to_depth, back, resize], constants=constants)


@pytest.mark.parametrize("window", [2, 7, 8, 12])
def test_the_required_multiple_is_measured_and_pictures_are_padded_to_it(
    window: int, tmp_path: Path
) -> None:
    path = windowed(tmp_path / "windows.onnx", window)
    assert read_onnx_file(path).interface.multiple == window
    image = picture(25, 31)
    with open_runner("onnxruntime", path, threads=1) as runner:
        np.testing.assert_array_equal(upscale(runner, image), image.repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize("dims", [("n", "c", "h", "w"), ("n", 3, 40, 24), (4, 3, "h", "w")])
def test_open_and_fixed_dimensions_are_read(dims: Sequence[str | int], tmp_path: Path) -> None:
    resize = helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest")
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    path = save(tmp_path / "file.onnx", [resize], dims=dims, constants=scales)
    interface = read_onnx_file(path).interface
    assert interface.size == ((24, 40) if dims[2] == 40 else None)
    assert interface.batch == (4 if dims[0] == 4 else None)
    assert (interface.input.layout, interface.input.channels) == ("NCHW", 3)
    assert interface.scale == 2


@pytest.mark.parametrize("dims", [["n", 3, 40, "w"], ["n", 3, "h", 40]])
def test_a_file_that_fixes_one_side_takes_squares(
    dims: Sequence[str | int], tmp_path: Path
) -> None:
    resize = helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest")
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    path = save(tmp_path / "file.onnx", [resize], dims=dims, constants=scales)
    assert read_onnx_file(path).interface.size == (40, 40)


@pytest.mark.parametrize("multiple", [1, 4])
def test_a_file_that_exchanges_width_and_height_is_refused(multiple: int, tmp_path: Path) -> None:
    nodes = [
        # Refuses sides that are no multiples.
        helper.make_node("SpaceToDepth", ["lr"], ["blocks"], blocksize=multiple),
        helper.make_node("DepthToSpace", ["blocks"], ["again"], blocksize=multiple),
        helper.make_node("Resize", ["again", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Transpose", ["large"], ["sr"], perm=[0, 1, 3, 2]),
    ]
    constants = {"scales": np.array([1, 1, 2, 2], np.float32)}
    path = save(tmp_path / "turned.onnx", nodes, constants=constants)
    with pytest.raises(InputError, match="exchanges width and height"):
        read_onnx_file(path)


def test_the_picture_is_found_among_several_outputs(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest"),
        helper.make_node("GlobalAveragePool", ["lr"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["score"]),
    ]
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    path = save(tmp_path / "file.onnx", nodes, constants=scales, outputs=("score", "sr"))
    assert read_onnx_file(path).interface.output.name == "sr"
    image = picture()
    with open_runner("onnxruntime", path, threads=1) as runner:
        np.testing.assert_array_equal(upscale(runner, image), image.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("shape", [[1], [1, 1, 1, 1]])
def test_a_second_input_is_refused_with_its_name_and_a_fix(
    tmp_path: Path, shape: list[int]
) -> None:
    path = save(tmp_path / "noise.onnx", [helper.make_node("Mul", ["lr", "sigma"], ["sr"])])
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("sigma", TensorProto.FLOAT, shape))
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"noise\.onnx.*sigma.*Freeze sigma"):
        read_onnx_file(path)


def test_an_input_of_no_stated_shape_is_refused_with_a_fix(tmp_path: Path) -> None:
    path = save(tmp_path / "file.onnx", [helper.make_node("Relu", ["lr"], ["sr"])])
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"of no stated shape.*update_model_dims"):
        read_onnx_file(path)


def with_external_data(folder: Path, gain: float) -> Path:
    """A file whose gain lies outside of it."""
    nodes = [
        helper.make_node("Conv", ["lr", "gain"], ["gained"], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["gained", "", "scales"], ["sr"], mode="nearest"),
    ]
    constants: dict[str, NDArray[np.generic]] = {
        "gain": gain
        * np.pad(np.eye(3, dtype=np.float32)[:, :, None, None], ((0, 0), (0, 0), (1, 1), (1, 1))),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    path = save(folder / "net.onnx", nodes, constants=constants)
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=200
    )
    return path


def test_the_hash_covers_external_data(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    path = with_external_data(tmp_path, 1.0)
    other = with_external_data(tmp_path / "new", 0.5)
    assert path.read_bytes() == other.read_bytes()
    before = read_onnx_file(path)
    shutil.copy(other.with_name("net.data"), path.with_name("net.data"))
    after = read_onnx_file(path)
    assert before.sha256 != after.sha256 == sha256_of_onnx(other)


def test_external_data_that_is_missing_is_named(tmp_path: Path) -> None:
    path = with_external_data(tmp_path, 1.0)
    path.with_name("net.data").unlink()
    with pytest.raises(InputError, match=r"net\.data"):
        read_onnx_file(path)


def test_functions_that_grow_exponentially_are_refused_before_expansion(tmp_path: Path) -> None:
    functions = []
    for depth in range(23):
        called = f"f{depth - 1}" if depth else "Relu"
        domain = "bomb" if depth else ""
        nodes = [
            helper.make_node(called, ["x"], ["m"], domain=domain),
            helper.make_node(called, ["m"], ["y"], domain=domain),
        ]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bomb", 1)]
        functions.append(helper.make_function("bomb", f"f{depth}", ["x"], ["y"], nodes, opsets))
    graph = helper.make_graph(
        [helper.make_node("f22", ["lr"], ["sr"], domain="bomb")],
        "bomb",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", 3, "h", "w"])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bomb", 1)]
    path = tmp_path / "bomb.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8), path
    )
    with pytest.raises(InputError, match=f"{2**23:,} nodes.*{MAX_NODES:,}"):
        read_onnx_file(path)


def test_a_loop_is_refused_by_name(tmp_path: Path) -> None:
    body = helper.make_graph([], "body", [], [])
    loop = helper.make_node("Loop", ["", "", "lr"], ["sr"], body=body)
    path = save(tmp_path / "loop.onnx", [loop])
    with pytest.raises(InputError, match=r"loop\.onnx.*Loop"):
        read_onnx_file(path)


def test_a_cached_interface_of_another_file_is_not_used(tmp_path: Path) -> None:
    first = repeating(tmp_path / "first.onnx", *FORMS["0..255"])
    read_onnx_file(first)
    (kept,) = (tmp_path / "cache").rglob("*.json")
    second = repeating(tmp_path / "second.onnx", *FORMS["ordinary"])
    kept.rename(kept.with_name(f"{sha256_of_onnx(second)}.json"))
    assert read_onnx_file(second).interface == Interface(FLOAT, Port("sr", "float32"), 2)


def test_small_tensors_in_external_data_are_read(tmp_path: Path) -> None:
    """ONNX Runtime refuses the path of such a file: "Cannot parse data from external tensors"."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest")],
        "resize",
        [onnx.helper.make_tensor_value_info("lr", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [onnx.helper.make_tensor_value_info("sr", onnx.TensorProto.FLOAT, ["n", 3, "y", "x"])],
        [scales],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert read_onnx_file(path).scale == 2
    with open_runner("onnxruntime", path) as runner:
        lr = np.random.default_rng(0).random((1, 3, 4, 5), np.float32)
        np.testing.assert_array_equal(runner.infer(lr), lr.repeat(2, 2).repeat(2, 3))


def test_a_graph_that_gives_nothing_is_refused_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "mute.onnx", [helper.make_node("Relu", ["lr"], ["sr"])])
    model = onnx.load(path)
    del model.graph.output[:]
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"mute\.onnx"):
        read_onnx_file(path)


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=12)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=CHANGES, cut=st.integers(0, 40))
def test_a_file_with_changed_bytes_is_read_or_refused_by_name(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int
) -> None:
    whole = repeating(tmp_path / "whole.onnx", *FORMS["ordinary"]).read_bytes()
    content = bytearray(whole)
    for place, value in changes:
        content[place % len(content)] = value
    path = tmp_path / "changed.onnx"
    path.write_bytes(bytes(content[: len(content) - cut]))
    refusals = []
    for read in (read_onnx_file, count_onnx):
        try:
            read(path)
        except (InputError, BackendMissingError) as error:
            refusals.append(str(error))
    assert all("changed.onnx" in refusal for refusal in refusals)


def test_an_output_of_another_type_is_refused_by_its_type(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Resize", ["lr", "", "scales"], ["larger"], mode="nearest"),
        helper.make_node("Cast", ["larger"], ["sr"], to=TensorProto.INT32),
    ]
    scales = np.array([1, 1, 2, 2], np.float32)
    path = save(tmp_path / "int32.onnx", nodes, given="int32", constants={"scales": scales})
    with pytest.raises(InputError, match=r"sr int32.*int32 is not a type.*float32.*Cast"):
        read_onnx_file(path)

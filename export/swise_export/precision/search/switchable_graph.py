"""A graph whose layers switch between full and lower precision while it runs.

A search over precisions runs the same network hundreds of times with different layers lowered.
Every layer is a conditional on a switch, so that one session serves all placements and nothing is
built or loaded between them. All arithmetic is fp32 on values that are rounded first. ONNX
Runtime's INT8 kernels are disabled: on x86 without VNNI they accumulate in 16 bits and saturate,
which no edge device does.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.evaluation.metrics import LUMA_WEIGHTS
from swise_deploy.evaluation.pairs import Pair
from swise_deploy.precision import HalfPrecision
from swise_deploy.runner import float_from_image
from swise_export.graph.half_emulation import rounding
from swise_export.graph.number_formats import values_of_tensor
from swise_export.precision.quantised.qdq import Layer

_SWITCHES = "swise.switches"


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a placement on pictures.

    Attributes:
        drift_db: PSNR-Y lost (negative) or gained, mean over the pictures.
        noise_db: PSNR-Y that would be lost if the error were independent of the network's own
            error; steadier than `drift_db` for a single layer, whose drift is mostly chance.
        worst_db: `noise_db` of the worst picture.
    """

    drift_db: float
    noise_db: float
    worst_db: float


def switchable_quantised(
    full: onnx.ModelProto, quantised: onnx.ModelProto, layers: Sequence[Layer]
) -> onnx.ModelProto:
    """Join an fp32 model and the same model in INT8 or FP8, with one switch for each layer.

    A layer becomes an If: with its switch on, its input is rounded, its weights are the dequantised
    ones, and its output is rounded if it is quantised; with its switch off it is the layer of the
    fp32 model, at its full speed.
    """
    switchable = copy.deepcopy(full)
    sources = {name: node for node in quantised.graph.node for name in node.output}
    arrays = {tensor.name: tensor for tensor in quantised.graph.initializer}
    lowered = {node.name: node for node in quantised.graph.node}
    quantised_by = {n.input[0]: n for n in quantised.graph.node if n.op_type == "QuantizeLinear"}
    numbers = {layer.name: i for i, layer in enumerate(layers)}
    weights = {layer.name: layer.weight for layer in layers}
    stored = {tensor.name: tensor for tensor in full.graph.initializer}
    nodes: list[onnx.NodeProto] = _switch_nodes(len(layers))
    for node in switchable.graph.node:
        if node.name not in numbers:
            nodes.append(node)
            continue
        dequantize = sources[lowered[node.name].input[0]]
        quantize = sources[dequantize.input[0]]
        rounded = _rounded_weights(lowered[node.name].input[1], sources, arrays)
        name = node.name
        then, constants = _rounding(node.input[0], f"{name}/dq", quantize, arrays)
        then.append(_branch_node(node, "on", input_name=f"{name}/dq"))
        of_output = quantised_by.get(lowered[name].output[0])
        if of_output is not None:
            then[-1].output[0] = f"{name}/wide"
            nodes_of_output, of_rounding = _rounding(
                f"{name}/wide", f"{name}/on", of_output, arrays
            )
            then += nodes_of_output
            constants += of_rounding
        off = onnx.TensorProto()
        off.CopyFrom(stored[weights[name]])
        off.name = f"{name}/off/weights"
        branches = {
            "then_branch": _branch(
                f"{name}/on",
                then,
                [*constants, numpy_helper.from_array(rounded, f"{name}/on/weights")],
            ),
            "else_branch": _branch(
                f"{name}/off", [_branch_node(node, "off", input_name=node.input[0])], [off]
            ),
        }
        nodes.append(helper.make_node("If", [_switch(numbers[name])], [*node.output], **branches))
    return _with_nodes(switchable, nodes, len(layers))


def _rounding(
    source: str, result: str, quantize: onnx.NodeProto, arrays: Mapping[str, TensorProto]
) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Nodes that round a tensor as a QuantizeLinear does, with their scale and zero point."""
    names = [f"{result}/scale", f"{result}/zero"]
    constants = []
    for name, part in zip(names, quantize.input[1:], strict=True):
        constant = onnx.TensorProto()
        constant.CopyFrom(arrays[part])
        constant.name = name
        constants.append(constant)
    nodes = [
        helper.make_node("QuantizeLinear", [source, *names], [f"{result}/q"]),
        helper.make_node("DequantizeLinear", [f"{result}/q", *names], [result]),
    ]
    return nodes, constants


def _branch_node(node: onnx.NodeProto, side: str, *, input_name: str) -> onnx.NodeProto:
    """A layer inside a branch, with the branch's input and weights."""
    inside = onnx.NodeProto()
    inside.CopyFrom(node)
    inside.name = f"{node.name}/{side}"
    inside.input[0], inside.input[1] = input_name, f"{node.name}/{side}/weights"
    inside.output[0] = f"{node.name}/{side}"
    return inside


def _branch(
    output: str, nodes: Sequence[onnx.NodeProto], constants: Sequence[TensorProto]
) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph(nodes, output, [], [value], constants)


def _rounded_weights(
    name: str, sources: Mapping[str, onnx.NodeProto], arrays: Mapping[str, TensorProto]
) -> NDArray[np.float32]:
    """The weights that a quantised layer multiplies by."""
    dequantize = sources[name]
    values, scales = (values_of_tensor(arrays[part]) for part in dequantize.input[:2])
    axis = next((a.i for a in dequantize.attribute if a.name == "axis"), 1)
    shape = [1] * values.ndim
    shape[axis] = -1
    return np.asarray(values * scales.reshape(shape), np.float32)


def switchable_half(
    full: onnx.ModelProto, nodes_to_switch: Sequence[str], precision: HalfPrecision = "fp16"
) -> onnx.ModelProto:
    """Give each named node of an fp32 model a switch that rounds what it reads and what it gives.

    Stored weights are rounded, too. The values between two nodes whose switches are on are rounded
    twice, which changes nothing.
    """
    switchable = copy.deepcopy(full)
    shaped = onnx.shape_inference.infer_shapes(full)
    values = (*shaped.graph.input, *shaped.graph.value_info, *shaped.graph.output)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    floats |= {t.name for t in full.graph.initializer if t.data_type == TensorProto.FLOAT}
    numbers = {name: i for i, name in enumerate(nodes_to_switch)}
    nodes: list[onnx.NodeProto] = _switch_nodes(len(numbers))

    def add_rounding(name: str, result: str, switch: str) -> None:
        nodes.extend(rounding(name, f"{result}/rounded", precision, prefix=result))
        nodes.append(helper.make_node("Where", [switch, f"{result}/rounded", name], [result]))

    for node in switchable.graph.node:
        if node.name not in numbers:
            nodes.append(node)
            continue
        switch = _switch(numbers[node.name])
        for i, name in enumerate(node.input):
            if name in floats:
                node.input[i] = f"{node.name}/input{i}"
                add_rounding(name, node.input[i], switch)
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name in floats:
                node.output[i] = f"{name}/full"
                add_rounding(node.output[i], name, switch)
    return _with_nodes(switchable, nodes, len(numbers))


def _switch(number: int) -> str:
    return f"{_SWITCHES}/{number}"


def _switch_nodes(count: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", [_SWITCHES, f"{_switch(i)}/index"], [_switch(i)])
        for i in range(count)
    ]


def _with_nodes(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], count: int
) -> onnx.ModelProto:
    kept = [copy.deepcopy(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(i, np.int64), f"{_switch(i)}/index") for i in range(count)
    )
    model.graph.input.append(helper.make_tensor_value_info(_SWITCHES, TensorProto.BOOL, [count]))
    return model


class SwitchableNetwork:
    """Runs a switchable model on pictures and scores placements.

    Args:
        model: Result of `switchable_quantised` or `switchable_half`, with float io.
        units: Names of the layers or nodes with a switch, in the order of the switches.
        pairs: Pictures to score.
        scale: Output size over input size; also the border that scores leave out.
        threads: Threads of ONNX Runtime.
        reference: A network with the same pictures and the same fp32 layers, whose outputs with all
            switches off are taken over.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        units: Sequence[str],
        pairs: Sequence[Pair],
        *,
        scale: int,
        threads: int,
        reference: "SwitchableNetwork | None" = None,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        # Threads that wait actively cost processor time and win nothing in runs of seconds.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._feed = model.graph.input[0].name
        self._numbers = {name: i for i, name in enumerate(units)}
        self._batches = _batches(pairs)
        self._border = scale
        self._reference = reference

    @cached_property
    def _full(self) -> list[NDArray[np.float64]]:
        return self._run(frozenset()) if self._reference is None else self._reference._full  # noqa: SLF001  # of its own class

    def effect(self, lowered: Collection[str]) -> Effect:
        """Measure the effect of lowering the precision of some units."""
        drifts, noises = [], []
        for batch, full, sr in zip(self._batches, self._full, self._run(lowered), strict=True):
            own = _mean_square(full - batch.hr)
            drifts.append(-10 * np.log10(_mean_square(sr - batch.hr) / own))
            noises.append(-10 * np.log10(1 + _mean_square(sr - full) / own))
        noise = np.concatenate(noises)
        return Effect(
            drift_db=float(np.mean(np.concatenate(drifts))),
            noise_db=float(np.mean(noise)),
            worst_db=float(np.min(noise)),
        )

    def _run(self, lowered: Collection[str]) -> list[NDArray[np.float64]]:
        switches = np.zeros(len(self._numbers), np.bool_)
        switches[[self._numbers[name] for name in lowered]] = True
        srs = []
        for batch in self._batches:
            (sr,) = self._session.run(None, {self._feed: batch.lr, _SWITCHES: switches})
            srs.append(_luma(sr, self._border))
        return srs


@dataclass(frozen=True, slots=True)
class _Batch:
    """Pictures of one size: LR (N, 3, H, W), luma of HR without its border."""

    lr: NDArray[np.float32]
    hr: NDArray[np.float64]


def _batches(pairs: Sequence[Pair]) -> list[_Batch]:
    by_size: dict[tuple[int, ...], list[Pair]] = {}
    for pair in pairs:
        by_size.setdefault(pair.lr.shape, []).append(pair)
    batches = []
    for group in by_size.values():
        scale = group[0].hr.shape[0] // group[0].lr.shape[0]
        lr, hr = (
            np.concatenate([float_from_image(image) for image in images])
            for images in ([p.lr for p in group], [p.hr for p in group])
        )
        batches.append(_Batch(lr, _luma(hr, scale)))
    return batches


def _luma(pictures: NDArray[np.float32], border: int) -> NDArray[np.float64]:
    """Y in [0, 255] of (N, 3, H, W) in [0, 1], not rounded, without the border."""
    inside = np.clip(pictures[:, :, border:-border, border:-border].astype(np.float64), 0, 1)
    # An overflow counts as black, as it is displayed.
    return np.asarray(np.einsum("nchw,c->nhw", np.nan_to_num(inside), LUMA_WEIGHTS * 255))


def _mean_square(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    smallest = float(np.finfo(np.float32).tiny)
    return np.asarray(np.maximum(np.mean(difference**2, axis=(1, 2)), smallest))

"""ONNX files in OpenVINO on a CPU with bf16 arithmetic, whatever precision the file states.

The outer layers stay in the file's precision, as models of their own: OpenVINO offers no public way
to keep single nodes of a model in fp32.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError
from swise_deploy.precision import FilePrecision
from swise_export.counting import count_onnx
from swise_export.graph.loading import load_onnx
from swise_export.graph.stages import Stage, find_stages
from swise_export.interface.onnx_file import OnnxFile
from swise_export.runtimes.openvino import OpenVinoRunner, Program, openvino_core, reason_of
from swise_export.runtimes.openvino import describe as describe_fp32

if TYPE_CHECKING:
    import openvino


logger = logging.getLogger(__name__)

# Attention may cost most of a large picture.
_COUNTED_LR_SIZE = (64, 64)


class OpenVinoBf16Runner(OpenVinoRunner):
    """Runs an ONNX file in OpenVINO, in bf16 but for INT8 layers and outer layers.

    Args:
        path: The file.
        threads: CPU threads; None for OpenVINO's default.

    Raises:
        BackendMissingError: OpenVINO is not installed.
        InputError: The file is not a picture network, or OpenVINO cannot run it.
    """

    runtime = "openvino-bf16"

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        super().__init__(path, threads=threads)
        self.name += ", bf16"
        self._stages: tuple[Stage, ...] = ()

    @property
    def precision(self) -> FilePrecision | None:
        """Precision of the layers that multiply."""
        stated = super().precision
        return "bf16" if stated in ("fp32", "fp16") else stated

    def activate(self) -> None:
        """Read the file; it is compiled when the shape of the first batch is known."""
        super().activate()
        self._stages = stages_of_file(self.file)

    def _compile(self, model: "openvino.Model", shape: tuple[int, ...] | None) -> Program:
        picture, output = self.file.interface.input.name, self.file.interface.output.name
        if shape is not None:
            model.reshape({picture: list(shape)})
        try:
            stages = self._stages
            requests = [self._request_of(model, stage) for stage in stages]
        except RuntimeError as error:
            # OpenVINO 2026.4 does not compile a model with a bf16 convolution that adds an input of
            # the model, where INT8 reads the sum. Without stages it is no input.
            logger.info("%s runs in bf16 as a whole: %s", self.path, reason_of(error))
            stages = (Stage((picture,), (output,), is_outer=False),)
            requests = [self._request_of(model, stages[0])]
            self._stages = stages  # nor will it for the next shape

        def run(batch: NDArray[np.number]) -> NDArray[np.number]:
            values: dict[str, Any] = {picture: batch}
            for stage, request in zip(stages, requests, strict=True):
                request.infer({name: values[name] for name in stage.inputs}, share_inputs=True)
                values.update({name: request.get_tensor(name) for name in stage.outputs})
            return np.array(values[output].data)

        return run

    def _request_of(self, model: "openvino.Model", stage: Stage) -> Any:
        precision: Literal["f32", "bf16"] = "f32" if stage.is_outer else "bf16"
        return self._request(_stage_of(model, stage), precision=precision)


def stages_of_file(file: OnnxFile) -> tuple[Stage, ...]:
    """The stages of a file; one where its layers cannot be counted."""
    try:
        layers = count_onnx(file.path, lr_size=file.interface.size or _COUNTED_LR_SIZE).layers
    except InputError:
        return (Stage((file.interface.input.name,), (file.interface.output.name,), is_outer=False),)
    mult_adds = {layer.name: layer.mult_adds for layer in layers}
    return find_stages(load_onnx(file.path, external_data=False), mult_adds)


def _stage_of(model: "openvino.Model", stage: Stage) -> "openvino.Model":
    """The part of a model that reads and gives some of its tensors."""
    ov = require("openvino", extra="openvino", purpose="running ONNX in OpenVINO")
    part = model.clone()
    ports = {
        name: port
        for operation in part.get_ordered_ops()
        for port in operation.outputs()
        for name in port.get_names()
    }
    # The parameter of an input may be an output of the stage as well.
    outputs = [ports[name] for name in stage.outputs]
    parameters = []
    for name in stage.inputs:
        port = ports[name]
        parameter = ov.opset13.parameter(port.get_partial_shape(), port.get_element_type())
        for reader in port.get_target_inputs():
            reader.replace_source_output(parameter.output(0))
        port.set_names(set())
        parameter.output(0).set_names({name})
        parameters.append(parameter)
    return ov.Model(outputs, parameters, "stage")


def open_runner(path: Path, *, threads: int | None = None) -> OpenVinoBf16Runner:
    """Open a file on the CPU."""
    return OpenVinoBf16Runner(path, threads=threads)


def describe() -> str:
    """Runtime, version, device and precision; OpenVINO is not imported for it."""
    return f"{describe_fp32()}, bf16"


def unusable_reason() -> str:
    """The reason why it cannot run here; "" where it can."""
    found = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in found:
        return f"this CPU has no bf16 arithmetic, only {', '.join(found)}"
    return ""

"""ONNX files in ncnn on a CPU, converted by pnnx, for comparison with other runtimes."""

import logging
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray

from swise_deploy.command.dependencies import installed_version, require
from swise_deploy.errors import BackendMissingError, ExportError, InputError
from swise_deploy.storage.files import scratch
from swise_export.graph.loading import load_onnx
from swise_export.runtimes.onnx_file import OnnxFileRunner

if TYPE_CHECKING:
    import ncnn

logger = logging.getLogger(__name__)

_CONVERSION_LIMIT_S = 300.0


class NcnnRunner(OnnxFileRunner):
    """Runs an ONNX file in ncnn, in fp32.

    pnnx converts for one size of picture: with dynamic sizes the graph keeps operations that ncnn
    lacks (pnnx 20261020, SwiseNet). So every change of size takes a conversion of several seconds,
    which is acceptable for measurements, not for folders of pictures. ncnn has no batches; the
    pictures of a batch run one after the other.

    Raises:
        BackendMissingError: ncnn or pnnx is not installed.
        InputError: The file is not a picture network with float32 pictures, channels first.
    """

    runtime = "ncnn"

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        purpose = "running ONNX in ncnn"
        self._ncnn = require("ncnn", extra="ncnn", purpose=purpose)
        self._pnnx = find_pnnx()
        super().__init__(path)
        port = self.file.interface.input
        if (port.dtype, port.layout) != ("float32", "NCHW"):
            raise InputError(
                f"{path} takes {port.dtype} pictures, {port.layout}; expected float32, NCHW for "
                "ncnn. Export it with --io float"
            )
        self.name = f"ncnn {self._ncnn.__version__} CPU"
        self._threads = threads
        self._net: ncnn.Net | None = None
        self._size: tuple[int, ...] = ()

    def activate(self) -> None:
        """Do nothing: the file is converted when the size of the first batch is known."""

    def run_file(self, batch: NDArray[np.number]) -> NDArray[np.number]:
        """Run the file on a batch, (N, C, H, W) float32.

        Raises:
            ExportError: pnnx cannot convert the network, or ncnn cannot run the result.
        """
        if batch.shape[2:] != self._size:
            self._net = None
            self._net = self._converted(batch.shape[2], batch.shape[3])
            self._size = batch.shape[2:]
        assert self._net is not None
        return np.stack([self._upscaled(self._net, picture) for picture in batch])

    def deactivate(self) -> None:
        """Free the network."""
        self._net = None
        self._size = ()

    def _upscaled(self, net: "ncnn.Net", picture: NDArray[np.number]) -> NDArray[np.float32]:
        with net.create_extractor() as extractor:
            # A copy, because ncnn's channels start at multiples of 16 bytes and numpy's do not.
            extractor.input("in0", self._ncnn.Mat(np.ascontiguousarray(picture)).clone())
            code, sr = extractor.extract("out0")
            if code != 0:
                raise ExportError(
                    f"ncnn failed to run {self.path.name} with code {code}; expected 0. "
                    "Measure it in another runtime"
                )
            return np.array(sr, np.float32)

    def _converted(self, height: int, width: int) -> "ncnn.Net":
        logger.info("converting %s to ncnn for pictures of %dx%d", self.path.name, width, height)
        with scratch() as folder:
            stem = folder / "network"
            onnx.save(load_onnx(self.path), f"{stem}.onnx")  # without external data
            channels = self.file.interface.input.channels
            shape = f"inputshape=[1,{channels},{height},{width}]"
            printed = self._run_pnnx(f"{stem}.onnx", shape, "fp16=0")
            net = self._ncnn.Net()
            if self._threads is not None:
                net.opt.num_threads = self._threads
            # By default ncnn uses half precision where it is fast; the runner computes in fp32.
            net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
            net.opt.use_bf16_storage = False
            param, weights = f"{stem}.ncnn.param", f"{stem}.ncnn.bin"
            is_loaded = (
                Path(param).is_file()
                and net.load_param(param) == 0
                and net.load_model(weights) == 0
                and net.input_names() == ["in0"]
                and net.output_names() == ["out0"]
            )
            if not is_loaded:
                raise ExportError(
                    f"pnnx {installed_version('pnnx')} cannot convert {self.path.name} to ncnn: "
                    f"{_reason(printed)}. Measure it in another runtime"
                )
            return net

    def _run_pnnx(self, *arguments: str) -> str:
        try:
            done = subprocess.run(  # noqa: S603  # the package's own program
                [self._pnnx, *arguments],
                cwd=Path(arguments[0]).parent,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_CONVERSION_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(
                f"pnnx did not convert {self.path.name} in {_CONVERSION_LIMIT_S:.0f} s. "
                "Measure it in another runtime"
            ) from error
        return done.stdout + done.stderr


def find_pnnx() -> Path:
    """Find the program of the converter pnnx.

    Its Python package imports torch, gigabytes that the program does not use. So the program is
    found without an import, and the package can be installed without torch.

    Raises:
        BackendMissingError: pnnx is not installed.
    """
    spec = find_spec("pnnx")
    program = Path(spec.origin).with_name("pnnx") if spec and spec.origin else None
    if program is None or not program.is_file():
        raise BackendMissingError(
            "running ONNX in ncnn needs the converter pnnx, which is not installed. Install it "
            "alone, since its program does not use the torch that it requires: "
            "pip install --no-deps 'pnnx>=20261020'"
        )
    return program


def _reason(printed: str) -> str:
    """The lines of pnnx's output about operations that ncnn lacks."""
    lines = [line for line in printed.splitlines() if "not supported" in line]
    ignored = sorted(
        {line.split()[1] for line in printed.splitlines() if line.startswith("ignore ")}
    )
    if ignored:
        lines.append(f"no ncnn layer for {', '.join(ignored)}")
    return "; ".join(dict.fromkeys(lines)) or "the result has not one input and one output"


def open_runner(path: Path, *, threads: int | None = None) -> NcnnRunner:
    """Open a file on the CPU."""
    return NcnnRunner(path, threads=threads)


def describe() -> str:
    """Runtime, version and device; ncnn is not imported for it."""
    return f"ncnn {installed_version('ncnn') or 'of unknown version'} CPU"


def unusable_reason() -> str:
    """The reason why it cannot run here; "" where it can."""
    try:
        find_pnnx()
    except BackendMissingError as error:
        return str(error)
    return ""

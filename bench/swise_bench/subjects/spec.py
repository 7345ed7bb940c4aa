"""Subjects of a benchmark: files and networks, each with the runner that is asked for.

A subject is written ARTEFACT[@RUNNER]:

    model.onnx                  ONNX Runtime on the CPU; @cuda for its CUDA provider
    model.onnx@openvino         the same file in OpenVINO
    model.onnx@ncnn             the same file in ncnn, converted by pnnx
    model.onnx@auto             whichever of what is installed is fastest here
    model.engine                a TensorRT engine
    model.engine@no-graphs      the same without CUDA graphs
    model.engine@pycuda         the same through pycuda, where cuda-python would serve
    model.engine@trtexec        the same in NVIDIA's trtexec, a program of its own
    swisenet:2                  the fp16 file of it that ships, in ONNX Runtime; needs no torch
    swisenet:2@torch            a network of the registry at a scale, eager torch
    swisenet:2@compile          the same through torch.compile
    swisenet:2@torch-cuda       eager torch on a GPU; also torch-cuda-fp16
    swisenet:2@compile-cuda     torch.compile on a GPU; also compile-cuda-fp16
    swisenet:2@plain            plain torch.onnx.export of it, in ONNX Runtime
    swisenet:2@plain-openvino   the same in OpenVINO; also -cuda, -ncnn
    swisenet:2@deploy           this project's export of it, in ONNX Runtime
    swisenet:2@deploy-openvino  the same in OpenVINO; also -cuda, -ncnn
    swisenet:2@ncnn             another name of deploy-ncnn: pnnx cannot convert the plain export
    swisenet:2@auto             the fastest of the exports and runtimes
    weights.safetensors@torch   your own weights
    weights.safetensors:4@torch the same at a scale, where they serve several
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from swise_deploy.checkpoints.shipped import WEIGHTS_SUFFIXES, resolve_onnx
from swise_deploy.command.console import choose, progress
from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.runner import Runner
from swise_export.manifest import Form
from swise_export.runtimes.table import DEFAULT_RUNTIME, RUNTIMES, open_runner, runtimes_for
from swise_export.tracing.cache import export_once

if TYPE_CHECKING:
    from swise_deploy.checkpoints.load import LoadedNetwork

FILE_RUNNERS = {
    ".onnx": (*runtimes_for("onnx"), "auto"),
    ".engine": tuple(runtimes_for("engine")),
}
TORCH_RUNNERS = tuple(runtimes_for("network"))
FORMS: tuple[Form, ...] = ("plain", "deploy")
NETWORK_RUNNERS = (
    *TORCH_RUNNERS,
    *FORMS,
    *(
        f"{form}-{name}"
        for form in FORMS
        for name in runtimes_for("onnx")
        if name != DEFAULT_RUNTIME
    ),
    # Where one form alone is worth running in a runtime, its name stands for both.
    *(n for n, r in runtimes_for("onnx").items() if r.forms and not r.is_automatic),
    "auto",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to measure.

    Attributes:
        name: As it was written.
        runner: Its runtime; for a registry network with the form in front ("deploy-openvino").
            "auto" has to be resolved (swise_bench.subjects.resolve_auto) before it is opened;
            programs of their own, such as trtexec, cannot be opened.
        path: The file that runs; None for a torch network.
        network: Name in the registry, "" for a foreign file.
        weights: The weights of a network, None for the shipped ones.
        scale: Output size over input size; None where the file has to tell.
    """

    name: str
    runner: str
    path: Path | None = None
    network: str = ""
    weights: Path | None = None
    scale: int | None = None


def parse_subject(text: str) -> Subject:
    """Read ARTEFACT[@RUNNER].

    Raises:
        InputError: No such file, network or runner.
    """
    artefact, _, runner = text.partition("@")
    path = Path(artefact) if runner else resolve_onnx(artefact)
    if path.suffix in FILE_RUNNERS:
        if not path.is_file():
            raise InputError(f"no file at {path}. Make it with swise-export or swise-build")
        known = FILE_RUNNERS[path.suffix]
        return Subject(text, choose(runner or known[0], known, what="runner"), path)
    runner = choose(runner or "torch", NETWORK_RUNNERS, what="runner")
    if runner in RUNTIMES and RUNTIMES[runner].takes == "onnx":
        runner = f"{RUNTIMES[runner].forms[0]}-{runner}"
    if path.suffix.lower() in WEIGHTS_SUFFIXES:
        return Subject(text, runner, weights=path)
    name, _, scale = artefact.rpartition(":")
    if Path(name).suffix.lower() in WEIGHTS_SUFFIXES and scale.removeprefix("x").isdecimal():
        return Subject(text, runner, weights=Path(name), scale=int(scale.removeprefix("x")))
    if not scale.removeprefix("x").isdecimal():
        suffixes = ", ".join([*FILE_RUNNERS, *sorted(WEIGHTS_SUFFIXES)])
        raise InputError(
            f"{artefact!r} is neither a file ({suffixes}) nor NETWORK:SCALE, such as swisenet:2"
        )
    choose(name, NETWORKS, what="model")
    return Subject(text, runner, network=name, scale=int(scale.removeprefix("x")))


def open_subject(subject: Subject, *, threads: int, folder: Path) -> Runner:
    """A runner for the subject, not yet activated.

    Args:
        subject: What to run.
        threads: Threads of the runtime, on a CPU.
        folder: Where files go that have to be exported first; they are kept and used again.
    """
    if subject.path is not None:
        return open_runner(subject.runner, subject.path, threads=threads)
    path = onnx_path(subject, folder)
    if path is None:
        return open_runner(subject.runner, load_network(subject), threads=threads)
    return open_runner(runtime_of(subject), path, threads=threads)


def runtime_of(subject: Subject) -> str:
    """Key of the runtimes table that runs a subject; "auto" has to be resolved before."""
    if subject.path is not None or subject.runner in TORCH_RUNNERS:
        return subject.runner
    return subject.runner.partition("-")[2] or DEFAULT_RUNTIME


def onnx_path(subject: Subject, folder: Path) -> Path | None:
    """The ONNX file behind a subject, exported where it has to be; None where there is none."""
    if subject.path is not None:
        return subject.path if subject.path.suffix == ".onnx" else None
    if subject.runner in TORCH_RUNNERS:
        return None
    form = cast("Form", subject.runner.partition("-")[0])
    return export_once(load_network(subject), folder, form=form, say=progress)


def load_network(subject: Subject) -> "LoadedNetwork":
    """The torch network of a subject that is one."""
    purpose = f"running {subject.name} in torch"
    checkpoint = require("swise_deploy.checkpoints.load", extra="export", purpose=purpose)
    network = checkpoint.open_network(
        subject.network or None, scale=subject.scale, weights=subject.weights
    )
    return cast("LoadedNetwork", network)


def file_subject(subject: Subject, folder: Path) -> str:
    """The subject as its exported file and what runs that; itself where it is a torch network."""
    path = onnx_path(subject, folder)
    if path is None:
        return subject.name
    return f"{path}@{runtime_of(subject)}"

"""A preloaded process that forks a child for each job, so that a job starts within milliseconds.

Run as a program it reads a job a line from stdin, as JSON, and answers with the child's end.
Threads do not survive a fork: ONNX Runtime and OpenVINO, which start one when they are imported,
and what imports them are left to the children, as are the pools of OpenBLAS and OpenMP.
"""

import atexit
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import Self

_THREADED = ("onnxruntime", "openvino")

ROOT = Path(__file__).resolve().parents[2]

_PRELOADED = (
    "numpy",
    "PIL.Image",
    "tifffile",
    "onnx.reference",
    "torch.onnx",
    "safetensors.torch",
    "av",
    "tensorrt_rtx",
    "matplotlib.pyplot",
    "hypothesis",
    "rich.progress",
    "swise_bench.main",
    "swise_bench.cli",
    "swise_bench.benchmark",
    "swise_bench.verbs.info_cli",
    "swise_engines.building.cli",
    "swise_engines.building.build",
    "swise_engines.doctor.cli",
    "swise_engines.upscaling.command",
    "swise_engines.upscaling.video.transcode",
    "swise_export.job",
    "swise_export.training.cli",
    "swise_deploy.training.loop",
)


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a job's process.

    Attributes:
        code: Exit code; minus the number of the signal that ended it.
        seconds: Wall time.
        processor_s: Processor time.
        answer: What the job wrote for its caller; {} where it was killed before.
    """

    code: int
    seconds: float
    processor_s: float
    answer: dict[str, Any]


class Forks:
    """A context manager around one preloaded process; `run` is for one thread at a time."""

    def __enter__(self) -> Self:
        paths = [ROOT, ROOT / "export", ROOT / "engines", ROOT / "bench"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "Agg",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, function: str, arguments: Mapping[str, object]) -> Ended:
        """Run a function, MODULE:NAME, in a forked process; it takes JSON types.

        The function's result is the exit code. What it writes to the file `arguments["answer"]`, as
        JSON, comes back.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"function": function, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the preloaded process has ended")
        found = json.loads(line)
        answer: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            answer = json.loads(Path(str(arguments["answer"])).read_text(encoding="utf-8"))
        return Ended(found["code"], found["seconds"], found["processor_s"], answer)


def serve() -> int:
    """Fork a child for each job."""
    for name in _THREADED:
        sys.modules[name] = None  # type: ignore[assignment]  # the import of it fails
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in _THREADED:
        del sys.modules[name]
    assert threading.active_count() == 1
    jobs, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for descriptor in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    for line in jobs:
        start = time.monotonic()
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            os.close(jobs.fileno())
            os.close(answers.fileno())
            signal.signal(signal.SIGINT, signal.default_int_handler)
            job = json.loads(line)
            module, _, name = job.pop("function").partition(":")
            code = getattr(importlib.import_module(module), name)(**job)
            _end(code)
        _, status, usage = os.wait4(child, 0)
        seconds = time.monotonic() - start
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what a killed command had started
        answers.write(
            json.dumps(
                {
                    "code": os.waitstatus_to_exitcode(status),
                    "seconds": seconds,
                    "processor_s": usage.ru_utime + usage.ru_stime,
                }
            )
            + "\n"
        )
        answers.flush()
    return 0


def _end(code: int) -> NoReturn:
    """End a child as Python ends, but for the release of memory, which takes seconds after a fork.

    Ends of Python itself are covered by commands that are started, not forked.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # what Python calls before atexit
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(serve())

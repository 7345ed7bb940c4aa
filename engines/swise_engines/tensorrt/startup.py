"""A first start of TensorRT in a process of its own, because a start that fails may crash it.

Without a driver `Builder` of TensorRT 8.6.0 raises an exception, and a `Runtime` after it ends the
process. `python -m swise_engines.tensorrt.startup tensorrt Runtime` is that process: it prints a
line of JSON for each step that is done, so that the steps before a crash are known.
"""

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from swise_deploy.errors import BackendMissingError

Part = Literal["Builder", "Runtime"]
PARTS: tuple[Part, ...] = get_args(Part)

LIMIT_S = 120.0  # a Jetson loads the libraries from an SD card
_IMPORTED, _ERROR = "version", "error"


@functools.cache
def check_start(part: Part) -> None:
    """Check once that `tensorrt` starts on this machine, before this process starts it.

    Raises:
        BackendMissingError: The start fails or crashes; the message has the reason.
    """
    reason = reason_of_failed_start([part])
    if reason:
        raise BackendMissingError(
            f"TensorRT does not start on this machine: {reason}. It needs an NVIDIA driver for the "
            "CUDA version that it was built with; swise-doctor shows both"
        )


def reason_of_failed_start(parts: Sequence[Part]) -> str:
    """Start parts of `tensorrt` one after the other in a new process; "" where all start."""
    command = [sys.executable, "-m", "swise_engines.tensorrt.startup", *parts]
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, names from Part
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            env=environment_of_child(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it takes longer than {LIMIT_S:.0f} s"
    steps = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return reason_from_steps(steps, parts, done.returncode)


def reason_from_steps(
    steps: Sequence[dict[str, str]], parts: Sequence[Part], exit_code: int
) -> str:
    """Reason why a start failed, from the steps that its process printed; "" where all is well."""
    for step in steps:
        if _ERROR in step:
            return step[_ERROR]
    started = [step["started"] for step in steps if "started" in step]
    if exit_code == 0 and started == list(parts):
        return ""
    at = ("import", *parts)[len(steps)] if len(steps) <= len(parts) else "its end"
    kind = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
    return f"it ends the process at {at} ({kind})"


def start_steps(parts: Sequence[Part]) -> Iterator[dict[str, str]]:
    """Import `tensorrt` and start parts of it; gives what is done after each step."""
    from swise_engines.tensorrt.api import Messages  # which imports this module

    try:
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        yield {_ERROR: str(error)}
        return
    yield {_IMPORTED: str(trt.__version__)}
    messages = Messages(trt)
    for part in parts:
        try:
            getattr(trt, part)(messages.sink)
        except TypeError as error:  # a null pointer of the C++ library
            # 8.6.0 logs the CUDA error as a warning.
            reason = [str(error), *messages.notes, *messages.errors][-1]
            yield {_ERROR: f"{part}: {reason}"}
            return
        yield {"started": part}


def environment_of_child() -> dict[str, str]:
    """Environment in which a new Python finds the modules that this one finds."""
    paths = [os.environ.get("PYTHONPATH", ""), *sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def main(arguments: Sequence[str]) -> int:
    """Start the parts that the arguments name, and print each step."""
    for step in start_steps([part for part in PARTS if part in arguments]):
        sys.stdout.write(json.dumps(step) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Memory of a run, in a process of its own so that nothing else is counted."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from swise_bench.measuring.nvml import NvmlError, open_nvml
from swise_bench.results.values import Memory, NotMeasured
from swise_bench.subjects.spec import open_subject, parse_subject, runtime_of
from swise_deploy.command.console import parse_size, size_text
from swise_deploy.storage.documents import document_from_json
from swise_deploy.timing import picture_call
from swise_export.runtimes.table import load_runtime

_TIMEOUT_S = 600.0
_NUM_RUNS = 3


def measure_memory(
    subject: str, *, lr_size: tuple[int, int], batch: int = 1, threads: int, folder: Path
) -> Memory | NotMeasured:
    """Run a subject in a new process and read how much memory it took at most.

    Args:
        subject: As `swise_bench.subjects.spec.parse_subject` reads it.
        lr_size: Input size, (W, H).
        batch: Pictures in one call.
        threads: Threads of the runtime.
        folder: Where exported files are kept.
    """
    if not Path("/proc/self/status").is_file():
        return NotMeasured("no /proc/self/status: peak memory is read there, on Linux")
    size = size_text(lr_size)
    command = [
        sys.executable,
        "-m",
        "swise_bench.measuring.memory",
        subject,
        size,
        str(batch),
        str(threads),
        str(folder),
    ]
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, this module
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
    except subprocess.TimeoutExpired:
        return NotMeasured(f"the process took more than {_TIMEOUT_S:.0f} s")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return NotMeasured(f"the process failed with exit code {done.returncode}: {last}")
    try:
        return document_from_json(done.stdout.splitlines()[-1], Memory)
    except (ValueError, IndexError) as error:
        return NotMeasured(f"the process printed no measurement: {error}")


def main(argv: Sequence[str] | None = None) -> int:
    """The child process: SUBJECT WxH BATCH THREADS FOLDER; measures itself and prints JSON."""
    subject, size, batch, threads, folder = sys.argv[1:] if argv is None else argv
    parsed = parse_subject(subject)
    load_runtime(runtime_of(parsed))
    before_load = _resident_bytes("VmRSS")
    with open_subject(parsed, threads=int(threads), folder=Path(folder)) as runner:
        after_load = _resident_bytes("VmRSS")
        call = picture_call(runner, parse_size(size), batch=int(batch))
        for _ in range(_NUM_RUNS):
            call()
        device_bytes = _device_bytes()
    memory = Memory(
        peak_rss_bytes=_resident_bytes("VmHWM"),
        before_load_rss_bytes=before_load,
        after_load_rss_bytes=after_load,
        device_bytes=device_bytes,
        lr_size=parse_size(size),
    )
    sys.stdout.write(msgspec.json.encode(memory).decode() + "\n")
    return 0


def _resident_bytes(field: str) -> int:
    """VmRSS: resident now; VmHWM: the most so far (proc_pid_status(5))."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def _device_bytes() -> int | NotMeasured:
    try:
        with open_nvml() as nvml:
            return nvml.used_by_this_process()
    except NvmlError as error:
        return NotMeasured(str(error))


if __name__ == "__main__":
    sys.exit(main())

"""NVIDIA's own benchmark of an engine, where it is installed: trtexec, its words read."""

import re
import shutil
import subprocess
from pathlib import Path

from swise_bench.results.values import NotMeasured, TrtexecResult, TrtexecSummary
from swise_deploy.errors import InputError, SwiseError
from swise_engines.tensorrt.manifest import read_manifest
from swise_engines.tensorrt.profiles import Extent

# Where JetPack and the Debian packages of TensorRT put it; it is on no PATH there.
USUAL_PLACE = Path("/usr/src/tensorrt/bin/trtexec")
_LIMIT_S = 300.0

_ROWS = ("Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency")
_VERSION = re.compile(r"\[TensorRT v(\d+)\]")
_ROW = re.compile(rf"^(?:\[[^\]]*\] )*({'|'.join(_ROWS)}|Throughput): (.*)$", re.MULTILINE)
_FIGURE = re.compile(r"(min|max|mean|median|percentile\((\d+(?:\.\d+)?)%\)) = ([\d.e+-]+) ms")


def measure_trtexec(
    name: str, engine: Path, *, lr_size: tuple[int, int], batch: int
) -> TrtexecResult:
    """Run trtexec on an engine that has its manifest beside it.

    Args:
        name: The subject as it was written.
        engine: The engine.
        lr_size: Input size, (W, H).
        batch: Pictures in one call.

    Raises:
        InputError: There is no manifest, so that the name of the input is not known.
        SwiseError: trtexec printed something else than a performance summary.
    """
    manifest = read_manifest(engine)
    if manifest is None:
        raise InputError(f"no manifest beside {engine}. Build it with swise-build")
    shape = Extent(batch, *lr_size).shape(manifest.interface.input)
    sides = "x".join(str(side) for side in shape)
    summary = _run(f"--loadEngine={engine}", f"--shapes={manifest.interface.input.name}:{sides}")
    return TrtexecResult(name, lr_size, batch, summary)


def _run(*arguments: str) -> TrtexecSummary | NotMeasured:
    found = shutil.which("trtexec")
    program = Path(found) if found else USUAL_PLACE
    if not program.is_file():
        return NotMeasured(f"trtexec is not installed: neither on the PATH nor at {USUAL_PLACE}")
    try:
        done = subprocess.run(  # noqa: S603  # no shell
            [program, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return NotMeasured(f"{program}: {error}")
    if done.returncode != 0:
        last = ((done.stdout + done.stderr).strip().splitlines() or ["no message"])[-1]
        return NotMeasured(f"{program} failed with {done.returncode}: {last}")
    return parse_trtexec(done.stdout)


def parse_trtexec(text: str) -> TrtexecSummary:
    """Read the performance summary in what trtexec prints.

    Raises:
        SwiseError: There is none.
    """
    rows: dict[str, dict[str, float]] = {}
    throughput_qps = 0.0
    for name, figures in _ROW.findall(text):
        if name == "Throughput":
            throughput_qps = float(figures.split()[0])
        else:
            rows[name] = {
                f"p{percent}" if percent else what: float(value)
                for what, percent, value in _FIGURE.findall(figures)
            }
    if not throughput_qps or "median" not in rows.get("GPU Compute Time", {}):
        raise SwiseError(
            f"trtexec printed no performance summary but {text.strip()[-200:]!r}; expected lines "
            "with Throughput and GPU Compute Time, as TensorRT 8.4 to 11 print them"
        )
    version = _VERSION.search(text)
    return TrtexecSummary(_release(version.group(1)) if version else "", throughput_qps, rows)


def _release(digits: str) -> str:
    """Spell out a version: 8601 is 8.6.1, 100300 is 10.3.0."""
    number = int(digits)
    ten = 10 if number < 10_000 else 100
    return f"{number // (100 * ten)}.{number // 100 % ten}.{number % 100}"

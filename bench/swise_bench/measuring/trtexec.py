"""NVIDIA's own benchmark of an engine, where it is installed: trtexec, its words read."""

import re
import shutil
import statistics
import subprocess
from pathlib import Path

from swise_bench.results.values import NotMeasured, TrtexecResult, TrtexecSummary
from swise_deploy.errors import InputError, SwiseError
from swise_engines.tensorrt.manifest import read_manifest
from swise_engines.tensorrt.profiles import Extent
from swise_engines.trtexec.results import read_results, version_from_log

# Where JetPack and the Debian packages of TensorRT put it; it is on no PATH there.
USUAL_PLACE = Path("/usr/src/tensorrt/bin/trtexec")
_LIMIT_S = 300.0

_ROWS = ("Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency")
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


def result_from_folder(folder: Path) -> TrtexecResult:
    """The measurements that a device made of a folder of `swise-build --trtexec`.

    Raises:
        InputError: The folder has no results, or they are damaged.
    """
    results = read_results(folder)
    facts = results.folder
    state = [*dict.fromkeys(results.power_mode), *(f"{mhz:.0f} MHz" for mhz in results.clocks_mhz)]
    where = f", {', '.join(state)}" if state else ""
    obeys = "" if results.constraints == "obey" else ", layer precisions not fixed"
    picture = "no picture" if results.psnr_db is None else f"picture {results.psnr_db:.1f} dB"
    summary = TrtexecSummary(
        results.version, 1000 / statistics.fmean(results.compute_ms), results.rows_ms()
    )
    name = f"{results.name}{where}{obeys}, {picture} of the reference"
    return TrtexecResult(name, (facts.width, facts.height), 1, summary)


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
    return TrtexecSummary(version_from_log(text), throughput_qps, rows)

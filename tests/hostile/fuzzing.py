"""Damaged files read one after the other in a forked process with limits of time and memory."""

import contextlib
import faulthandler
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from swise_deploy.errors import InputError
from tests.hostile.forks import Forks
from tests.hostile.parsers import PARSERS, Parser
from tests.hostile.tallies import Failure, Tally

LIMIT_S = 5.0
LIMIT_MIB = 1024
_ADDRESS_SPACE_MIB = 4096  # so that what asks for more fails at once, instead of taking the machine
_CHUNK = 100


def read_chunk(
    parser: str, *, number: int, chunk_seed: int, samples: str, work: str, answer: str
) -> int:
    """Damage and read files in this process; writes one JSON line for each before and after.

    Args:
        parser: Name of a parser.
        number: How many files.
        chunk_seed: From which all files follow.
        samples: The folder of the parser's samples.
        work: A folder for one damaged sample at a time.
        answer: The file for the lines.
    """
    chosen = next(p for p in PARSERS if p.name == parser)
    place = Path(work)
    place.mkdir(parents=True, exist_ok=True)
    _quieten(place)
    originals = sorted(path for path in Path(samples).iterdir() if path.is_dir())
    lines = Path(answer).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115  # until the end
    hangs = (place / "hangs").open("wb")
    for original in originals:  # whole files are read, and load what the parser needs
        shutil.copytree(original, place / "sample", dirs_exist_ok=True)
        with contextlib.suppress(InputError):  # several frames
            chosen.read(place / "sample")
        shutil.rmtree(place / "sample")
    limit = _virtual_bytes() + (_ADDRESS_SPACE_MIB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    @seed(chunk_seed)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def one(data: Any) -> None:
        sample = place / "sample"
        shutil.rmtree(sample, ignore_errors=True)
        original = data.draw(st.sampled_from(originals))
        shutil.copytree(original, sample)
        candidates = sorted(p for p in sample.glob(chosen.pattern) if p.is_file())
        path = data.draw(st.sampled_from(candidates))
        others = tuple(
            p.read_bytes() for o in originals for p in sorted(o.glob(chosen.pattern)) if p.is_file()
        )
        if data.draw(st.integers(0, 24)) == 0:
            replace_file(path, data.draw(st.sampled_from(REPLACEMENTS)))
        else:
            path.write_bytes(chosen.damage(data.draw, path.read_bytes(), others))
        lines.write(json.dumps({"file": path.name}) + "\n")
        faulthandler.dump_traceback_later(6 * LIMIT_S, exit=True, file=hangs)
        found = judged(lambda: chosen.read(sample))
        faulthandler.cancel_dump_traceback_later()
        lines.write(json.dumps(found) + "\n")

    one()
    return 0


REPLACEMENTS = ("empty", "folder", "pipe", "endless", "sparse", "dangling", "looping")
"""What may stand in the place of a file."""

_SPARSE_BYTES = 3 << 30


def replace_file(path: Path, replacement: str) -> None:
    """Put something else than a usual file in its place."""
    path.unlink()
    if replacement == "empty":
        path.touch()
    elif replacement == "folder":
        path.mkdir()
    elif replacement == "pipe":
        os.mkfifo(path)
    elif replacement == "endless":
        path.symlink_to("/dev/zero")
    elif replacement == "sparse":
        with path.open("wb") as file:
            file.truncate(_SPARSE_BYTES)
    else:
        path.symlink_to("absent" if replacement == "dangling" else path.name)


def _quieten(place: Path) -> None:
    """Keep messages of libraries from the terminal, and caches in the work folder."""
    descriptor = os.open(place / "stderr", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    warnings.simplefilter("ignore")
    (place / "cache").mkdir(exist_ok=True)
    (place / "tmp").mkdir(exist_ok=True)
    os.environ.update({"XDG_CACHE_HOME": str(place / "cache"), "TMPDIR": str(place / "tmp")})
    tempfile.tempdir = None


def judged(read: Callable[[], object]) -> dict[str, object]:
    """Read a file: "read", "refused" or "failed" with the reason, and what it took."""
    ignored: list[str] = []
    sys.unraisablehook = lambda raised: ignored.append(repr(raised.exc_value))
    base_mib = _reset_peak()
    start, cpu = time.monotonic(), time.process_time()
    found: dict[str, object]
    try:
        read()
        found = {"end": "read"}
    except InputError as error:
        found = {"end": "refused", "reason": str(error)[:300]}
    except Exception as error:  # noqa: BLE001  # everything else is a failure
        text = "".join(traceback.format_exception(error, limit=-6))
        found = {"end": "failed", "reason": text[-3000:]}
    seconds = min(time.monotonic() - start, time.process_time() - cpu)
    peak = _peak_mib() - base_mib
    if ignored:
        found = {"end": "failed", "reason": f"ignored by Python: {ignored[0]}"}
    elif seconds > LIMIT_S:
        found = {"end": "failed", "reason": f"took {seconds:.1f} s of processor time"}
    elif peak > LIMIT_MIB:
        found = {"end": "failed", "reason": f"took {peak:.0f} MiB"}
    return {**found, "seconds": seconds, "peak_mib": peak}


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _reset_peak() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_mib()


def _peak_mib() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def fuzz(
    forks: Forks, parser: Parser, number: int, run_seed: int, *, samples: Path, folder: Path
) -> Tally:
    """Read `number` damaged files of one kind; a process that ends goes on with the next seed."""
    tally = Tally(parser.name, run_seed)
    source = samples / parser.name
    if not source.is_dir():
        tally.skipped = "its packages are not installed"
        return tally
    folder.mkdir(parents=True, exist_ok=True)
    chunk_seed = run_seed * 100_000
    while tally.tried < number:
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        answer = folder / "answer"
        wanted = min(_CHUNK, number - tally.tried)
        before = tally.tried
        ended = forks.run(
            "tests.hostile.fuzzing:read_chunk",
            {
                "parser": parser.name,
                "number": wanted,
                "chunk_seed": chunk_seed,
                "samples": str(source),
                "work": str(work),
                "answer": str(answer),
            },
        )
        lines = [json.loads(line) for line in answer.read_text(encoding="utf-8").splitlines()]
        _count(tally, lines, chunk_seed)
        if ended.code:
            hangs = (work / "hangs").read_text(encoding="utf-8", errors="replace")
            reason = f"the process ended with {ended.code}: {hangs[-2500:]}"
            if not lines or "file" not in lines[-1]:
                raise RuntimeError(
                    f"{parser.name}, seed {chunk_seed}: {reason} "
                    f"{(work / 'stderr').read_text(errors='replace')[-3000:]}"
                )
            case = f"{parser.name}, seed {chunk_seed}, file {sum('file' in x for x in lines)}"
            tally.failures.append(Failure(case, reason))
            tally.tried += 1
            kept = folder.parent.parent / "failures" / re.sub(r"\W+", "-", case)
            with contextlib.suppress(shutil.Error):  # pipes are not copied
                shutil.copytree(work, kept, dirs_exist_ok=True, symlinks=True)
        if tally.tried == before:
            raise RuntimeError(f"{parser.name}: seed {chunk_seed} gives no file")
        chunk_seed += 1
    return tally


def _count(tally: Tally, lines: list[dict[str, Any]], chunk_seed: int) -> None:
    index = 0
    for line in lines:
        if "file" in line:
            index += 1
            continue
        tally.tried += 1
        tally.refused += line["end"] == "refused"
        tally.peak_mib = max(tally.peak_mib, line["peak_mib"])
        tally.slowest_s = max(tally.slowest_s, line["seconds"])
        if line["end"] == "failed":
            case = f"{tally.name}, seed {chunk_seed}, file {index}"
            tally.failures.append(Failure(case, line["reason"]))

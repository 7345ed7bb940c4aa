"""Names of subjects as they are shown: without the paths of this machine."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from swise_bench.results.values import Benchmark

_PATH = re.compile(r"(?<![\w.])(?:~|\.{1,2})?/(?:[^\s/'\":;,]+/)+(?=[^\s/'\":;,]+)")


def short_names(names: Sequence[str]) -> dict[str, str]:
    """A short name for each: the file's name, with as many folders as tell it from the others."""
    parts = {name: PurePath(name).parts for name in names}
    found: dict[str, str] = {}
    for name in names:
        for length in range(1, len(parts[name]) + 1):
            short = "/".join(parts[name][-length:])
            alike = [other for other in names if "/".join(parts[other][-length:]) == short]
            if len(alike) == 1:
                break
        found[name] = short or name
    return found


def without_paths(text: str) -> str:
    """A text in which paths are cut down to the names of their files."""
    return _PATH.sub("", text)


def renamed(benchmark: Benchmark, names: Mapping[str, str]) -> Benchmark:
    """The same results under the names that are shown, without paths."""
    return dataclasses.replace(
        benchmark,
        command=without_paths(benchmark.command),
        subjects=tuple(
            dataclasses.replace(
                subject,
                name=names[subject.name],
                failures={what: without_paths(why) for what, why in subject.failures.items()},
            )
            for subject in benchmark.subjects
        ),
        ratios=tuple(
            dataclasses.replace(r, subject=names[r.subject], reference=names[r.reference])
            for r in benchmark.ratios
        ),
        trtexec=tuple(
            dataclasses.replace(r, name=without_paths(r.name)) for r in benchmark.trtexec
        ),
    )

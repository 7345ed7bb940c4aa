"""MB on disk that each extra adds to `cpu`: the table of docs/install.md.

    python bench/scripts/docs/extras_size.py

Sums the sizes of the files that the installed distributions record, over everything that an extra
requires in this environment. An extra with a requirement that is not installed is left out.
"""

import argparse
import sys
from importlib import metadata
from pathlib import Path

from swise_deploy.command.console import run_command
from swise_deploy.command.dependencies import require

NAME = "swise-deploy"


def main() -> int:
    """Print the table."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    return run_command(_run)


def _run() -> int:
    base = _closure(NAME, extra="cpu")
    names = sorted(metadata.metadata(NAME).get_all("Provides-Extra") or [])
    lines = ["| extra | packages | MB |", "|---|---:|---:|", _row("`cpu`", base)]
    for extra in names:
        if extra == "cpu":
            continue
        try:
            added = _closure(NAME, extra=extra) - base
        except metadata.PackageNotFoundError as error:
            sys.stderr.write(f"{extra}: {error.name} is not installed here\n")
            continue
        lines.append(_row(f"`{extra}`", added))
    sys.stdout.write("\n".join([*lines, ""]))
    return 0


def _row(name: str, distributions: set[str]) -> str:
    size_bytes = sum(_size_bytes(distribution) for distribution in distributions - {NAME})
    return f"| {name} | {len(distributions - {NAME})} | {size_bytes / 1e6:.0f} |"


def _closure(name: str, *, extra: str) -> set[str]:
    """A distribution and all that it requires with an extra ("": without one), installed here."""
    parse = require("packaging.requirements", extra="export", purpose="sizes of extras").Requirement
    found: set[str] = set()
    pending = [(name, extra)]
    seen: set[tuple[str, str]] = set()
    while pending:
        item = pending.pop()
        if item in seen:
            continue
        seen.add(item)
        distribution = metadata.distribution(item[0])
        found.add(item[0].lower().replace("_", "-"))
        for line in distribution.requires or []:
            requirement = parse(line)
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": item[1]}):
                pending.append((requirement.name, ""))
                pending += [(requirement.name, own) for own in requirement.extras]
    return found


def _size_bytes(name: str) -> int:
    paths = [Path(str(file.locate())) for file in metadata.distribution(name).files or []]
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    sys.exit(main())

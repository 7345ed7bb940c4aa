"""Write the folders of the rooms, with the first line of their docstrings, into a page.

    python bench/scripts/docs/folder_list.py docs/architecture.md

Everything below the heading "Folders" is replaced. A test compares the page with the tree.
"""

import argparse
import ast
import sys
from pathlib import Path

from swise_deploy.command.console import run_command
from swise_deploy.errors import InputError
from swise_deploy.storage.files import writing

ROOMS = ("swise_deploy", "export/swise_export", "engines/swise_engines", "bench/swise_bench")
HEADING = "## Folders\n"
COMMAND = "python bench/scripts/docs/folder_list.py docs/architecture.md"
INTRODUCTION = f"\nThe first line of each folder's `__init__.py`, by `{COMMAND}`.\n"


def main() -> int:
    """Rewrite the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("page", type=Path)
    page: Path = parser.parse_args().page
    return run_command(lambda: _run(page))


def _run(page: Path) -> int:
    text = page.read_text(encoding="utf-8")
    if HEADING not in text:
        raise InputError(f"{page} has no heading {HEADING.strip()!r}")
    checkout = Path(__file__).resolve().parents[3]
    sections = [
        f"\n### {room}\n\n| folder | contents |\n|---|---|\n"
        + "\n".join(_rows(checkout / room))
        + "\n"
        for room in ROOMS
    ]
    with writing(page) as temporary:
        temporary.write_text(
            text.partition(HEADING)[0] + HEADING + INTRODUCTION + "".join(sections),
            encoding="utf-8",
        )
    return 0


def _rows(room: Path) -> list[str]:
    rows = []
    for folder in sorted(init.parent for init in room.rglob("__init__.py")):
        source = (folder / "__init__.py").read_text(encoding="utf-8")
        contents = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        name = folder.relative_to(room).as_posix()
        rows.append(f"| {'(the room)' if name == '.' else f'`{name}/`'} | {contents} |")
    return rows


if __name__ == "__main__":
    sys.exit(main())

"""docs/architecture.md lists every folder of the rooms, with the first line of its docstring."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "architecture.md"
PICTURE = REPOSITORY / "docs" / "images" / "rooms.svg"
ROOMS = ["swise_deploy", "export/swise_export", "engines/swise_engines", "bench/swise_bench"]
MOST_MODULES = 14


def rows_of(room: str) -> list[str]:
    base = REPOSITORY / room
    folders = sorted(init.parent for init in base.rglob("__init__.py"))
    rows = []
    for folder in folders:
        doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert doc, f"{folder} has no docstring: one line for what belongs in it"
        name = folder.relative_to(base).as_posix()
        rows.append(f"| {'(the room)' if name == '.' else f'`{name}/`'} | {doc.splitlines()[0]} |")
    return rows


@pytest.mark.parametrize("room", ROOMS)
def test_the_page_lists_the_folders_of_the_tree(room: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    section = re.search(rf"^### {room}\n\n(.*?)(?=\n###|\Z)", page, re.S | re.M)
    assert section, f"docs/architecture.md has no section {room}"
    listed = section[1].strip().splitlines()[2:]
    assert listed == rows_of(room), (
        "run: python bench/scripts/docs/folder_list.py docs/architecture.md"
    )


@pytest.mark.parametrize("room", ROOMS)
def test_the_drawing_names_the_folders_of_the_room(room: str) -> None:
    drawing = PICTURE.read_text(encoding="utf-8")
    base = REPOSITORY / room
    folders = {init.parent.name for init in base.glob("*/__init__.py")}
    parts = drawing.split(f">{base.name}</text>")[1].split('class="room"')[0]
    drawn = set(re.findall(r'text-anchor="middle">(\w+)</text>', parts))
    assert drawn == folders, "run: python bench/scripts/docs/rooms_drawing.py docs/images/rooms.svg"


def test_no_folder_holds_more_files_than_a_stranger_can_survey() -> None:
    crowded = {
        folder.relative_to(REPOSITORY).as_posix(): count
        for room in ROOMS
        for folder in (init.parent for init in (REPOSITORY / room).rglob("__init__.py"))
        if (count := len([p for p in folder.glob("*.py") if p.name != "__init__.py"]))
        > MOST_MODULES
    }
    assert crowded == {}

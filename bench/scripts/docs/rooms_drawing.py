"""Draw the four rooms and their folders, in the order of the import contracts.

    python bench/scripts/docs/rooms_drawing.py docs/images/rooms.svg

A test compares the drawing with the tree.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from swise_deploy.command.console import run_command
from swise_deploy.storage.files import writing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).resolve().parents[3]
ROOMS = {
    "swise_bench": ("bench/", "count, measure, report, compare"),
    "swise_engines": ("engines/", "compile for a device, choose the fastest runtime, upscale"),
    "swise_export": ("export/", "trace, rewrite, place precision, verify"),
    "swise_deploy": ("./", "networks, checkpoints, pictures, metrics, training; torch lives here"),
}
WIDTH, HEIGHT, ROOM_HEIGHT, GAP = 860, 428, 88, 16
STYLE = """text{font-family:-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif;fill:#1b1f24}
.t{font-size:15px;font-weight:600}.s{font-size:12.5px;fill:#57606a}
.m{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:12px;fill:#57606a}
.step{fill:#fff;stroke:#b6bec8}.room{fill:#f3faf6;stroke:#7fbf9f}
path{stroke:#57606a;stroke-width:1.5;fill:none}"""
ARROW = (
    '<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0 L10 5 L0 10 z" style="fill:#57606a;stroke:none"/></marker></defs>'
)
LABEL = "Four rooms; each imports only from those below it"


def main() -> int:
    """Write the drawing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("svg", type=Path)
    svg: Path = parser.parse_args().svg
    return run_command(lambda: _run(svg))


def _run(svg: Path) -> int:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    parts = [part for i, room in enumerate(ROOMS) for part in _room(i, room, contracts)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="{LABEL}">'
    )
    background = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    lines = [head, f"<style>{STYLE}</style>", ARROW, background, *parts, "</svg>", ""]
    with writing(svg) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    return 0


def _room(index: int, room: str, contracts: list[dict[str, Any]]) -> list[str]:
    folder, contents = ROOMS[room]
    top = 14 + index * (ROOM_HEIGHT + GAP)
    drawn = [
        f'<rect class="room" x="14" y="{top}" width="832" height="{ROOM_HEIGHT}" rx="10"/>',
        _text("t", 30, top + 27, room, "start"),
        _text("m", 38 + 9.2 * len(room), top + 27, folder, "start"),
        _text("s", 830, top + 27, contents, "end"),
    ]
    names = _folders(folder, room, contracts)
    width = (800 - 8 * (len(names) - 1)) / len(names)
    for position, name in enumerate(names):
        left = 30 + position * (width + 8)
        box = f'x="{left:.1f}" y="{top + 42}" width="{width:.1f}" height="32" rx="6"'
        drawn.append(f'<rect class="step" {box}/>')
        drawn.append(_text("m", left + width / 2, top + 63, name, "middle"))
    if index < len(ROOMS) - 1:
        bottom = top + ROOM_HEIGHT
        drawn.append(f'<path d="M430 {bottom} L430 {bottom + GAP - 1}" marker-end="url(#a)"/>')
    return drawn


def _folders(folder: str, room: str, contracts: list[dict[str, Any]]) -> list[str]:
    layers = next(c["layers"] for c in contracts if c.get("containers") == [room])
    names = [name.strip() for layer in layers for name in layer.split("|")]
    return [n for n in names if (CHECKOUT / folder / room / n / "__init__.py").is_file()]


def _text(style: str, x: float, y: int, text: str, anchor: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{text}</text>'


if __name__ == "__main__":
    sys.exit(main())

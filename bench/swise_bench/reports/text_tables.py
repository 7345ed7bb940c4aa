"""Tables of text: for the terminal and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

MISSING = "-"


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of text.

    Attributes:
        title: What it shows.
        columns: Headings.
        rows: As many cells as there are columns.
        notes: Lines below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def print_tables(tables: Sequence[TextTable], console: Console) -> None:
    """Tables on the terminal."""
    for table in tables:
        grid = Table(title=table.title, title_justify="left", title_style="bold")
        for index, column in enumerate(table.columns):
            grid.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
        for row in table.rows:
            grid.add_row(*row)
        console.print(grid)
        for note in table.notes:
            console.print(note, style="dim", highlight=False)


def markdown_from_tables(tables: Sequence[TextTable]) -> str:
    """Tables in GitHub's Markdown."""
    lines: list[str] = []
    for table in tables:
        lines += [f"### {table.title}", ""]
        lines.append(_markdown_row(table.columns))
        lines.append("|---|" + "---:|" * (len(table.columns) - 1))
        lines += [_markdown_row(row) for row in table.rows]
        lines += ["", *(f"{note}  " for note in table.notes), ""]
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

"""The verdict on the terminal, and as Markdown."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from swise_bench.reports.verdict import Summary, Verdict

BAR_WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def print_summary(summary: Summary, console: Console) -> None:
    """Headline, warning, and one line with a bar for each subject."""
    console.print(summary.headline, style="bold", highlight=False)
    if summary.warning:
        console.print(f"warning: {summary.warning}", style="yellow", highlight=False)
    most = max((v.share.value for v in summary.verdicts if v.share), default=1.0)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(overflow="fold")
    grid.add_column(no_wrap=True, width=BAR_WIDTH)
    grid.add_column(overflow="fold")
    for verdict in summary.verdicts:
        grid.add_row(
            Text(verdict.name, style="bold" if verdict.is_fastest or verdict.is_best else ""),
            bar(verdict.share.value / most) if verdict.share else "",
            Text(_words(verdict)),
        )
    console.print(grid)
    console.print(summary.conditions.partition(";")[0], style="dim", highlight=False)


def markdown_from_summary(summary: Summary) -> str:
    """The same in GitHub's Markdown."""
    lines = [f"**{summary.headline}**", ""]
    if summary.warning:
        lines += [f"Warning: {summary.warning}", ""]
    lines += [f"{v.number}. `{v.name}`: {_words(v)}" for v in summary.verdicts]
    return "\n".join([*lines, "", summary.conditions.partition(";")[0], "", ""])


def bar(share: float, width: int = BAR_WIDTH) -> str:
    """A bar of block characters, in eighths of a character; at least an eighth."""
    eighths = max(1, min(8 * width, round(8 * width * share)))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _words(verdict: Verdict) -> str:
    kinds = [
        k for k, holds in (("fastest", verdict.is_fastest), ("best", verdict.is_best)) if holds
    ]
    return " ".join([*(f"[{kind}]" for kind in kinds), verdict.words])

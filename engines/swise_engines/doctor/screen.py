"""A report of swise-doctor as text, wrapped to the width of the terminal."""

import textwrap

from rich.console import Console

from swise_engines.doctor.abilities import Ability
from swise_engines.doctor.machine import Fact
from swise_engines.doctor.report import DoctorReport

_UNITS = {"mib": "MiB", "gib": "GiB", "mhz": "MHz", "c": "degrees C", "w": "W"}
_NAME_WIDTH = 22


def show_report(report: DoctorReport, console: Console) -> None:
    """Print a report."""
    for title, section in report.examination.sections.items():
        _show_title(console, title)
        for fact in section:
            _show_fact(console, fact)
    _show_title(console, "what works")
    for ability in report.abilities:
        _show_ability(console, ability, ability.name)
    if report.install_extras:
        _show_text(console, "    The missing extras, together or one by one:", "    ")
        _show_commands(console, (report.install_extras,))
    for item in report.advice:
        _show_text(console, f"! {item.what}", "  ", style="yellow")
        _show_commands(console, item.fix)
    if report.support:
        _show_title(console, f"target {report.support.target}")
        _show_ability(console, report.support.build, "build here")
        _show_ability(console, report.support.run, "run here")
    if report.family:
        _show_title(console, f"targets of the family {report.family[0].kind}")
        for target in report.family:
            _show_text(console, f"{target.name:{_NAME_WIDTH}} SM {target.sm:4} {target.title}", "")
            releases = ", ".join(f"{jetpack} ({trt})" for jetpack, trt in target.jetpacks.items())
            if releases:
                indent = " " * (_NAME_WIDTH + 1)
                _show_text(console, f"{indent}JetPack (TensorRT): {releases}", indent, style="dim")


def _show_title(console: Console, title: str) -> None:
    console.rule(f"[bold]{title}", align="left")


def _show_fact(console: Console, fact: Fact) -> None:
    stem, _, suffix = fact.name.rpartition("_")
    unit = _UNITS.get(suffix) if stem else None
    name = (stem if unit else fact.name).replace("_", " ")
    if fact.value is None:
        text = str(fact.reason) if fact.is_absent else f"unknown: {fact.reason}"
    elif isinstance(fact.value, bool):
        text = ("no", "yes")[fact.value]
    else:
        text = f"{fact.value} {unit}" if unit else str(fact.value)
    style = "dim" if fact.value is None else None
    _show_text(console, f"  {name:<{_NAME_WIDTH}} {text}", " " * (_NAME_WIDTH + 3), style=style)


def _show_ability(console: Console, ability: Ability, name: str) -> None:
    mark = "yes" if ability.works else "no "
    extra = f" [{ability.extra}]" if ability.extra else ""
    text = f"{mark} {name}: {ability.why}{extra}"
    _show_text(console, text, "    ", style="green" if ability.works else "red")
    if not ability.extra:
        _show_commands(console, ability.fix)


def _show_commands(console: Console, commands: tuple[str, ...]) -> None:
    """Print commands in a form to copy: a long one continues after a backslash."""
    for command in commands:
        body, hash_mark, comment = command.partition("   # ")
        lines = textwrap.wrap(
            f"    $ {body}",
            console.width - 2,
            subsequent_indent="        ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        text = " \\\n".join(lines)
        if hash_mark:
            fits = len(lines[-1]) + len(comment) + 5 <= console.width
            text += f"   # {comment}" if fits else f"\n      # {comment}"
        console.print(text, markup=False, style="bold", soft_wrap=True)


def _show_text(console: Console, text: str, indent: str, *, style: str | None = None) -> None:
    lines = textwrap.wrap(
        text,
        console.width,
        subsequent_indent=indent,
        replace_whitespace=False,
        break_on_hyphens=False,
    )
    for line in lines or [text]:
        console.print(line.rstrip(), markup=False, style=style, soft_wrap=True)

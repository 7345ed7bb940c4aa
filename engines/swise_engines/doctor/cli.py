"""`swise-doctor`: what this machine is, what it can do, and how to mend what it cannot."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from swise_deploy.command.console import add_version, run_command
from swise_deploy.errors import BackendMissingError

if TYPE_CHECKING:
    from rich.console import Console

    from swise_engines.doctor.abilities import Ability, Advice, TargetVerdict
    from swise_engines.doctor.examination import Examination
    from swise_engines.doctor.machine import Fact

SCHEMA_VERSION = 1
_UNITS = {"mib": "MiB", "gib": "GiB", "mhz": "MHz", "c": "degrees C", "w": "W"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run swise-doctor: 0 where the machine was examined, 3 where a target cannot be served."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _examine(arguments.target, as_json=arguments.json))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swise-doctor",
        description="Show this machine: GPU, drivers, TensorRT, power mode, memory; what works, "
        "what does not, and the command that mends it. Nothing is changed.",
        epilog="Exit codes: 0 examined, 2 unknown target, 3 the target cannot be served here.",
    )
    parser.add_argument(
        "--target",
        metavar="NAME",
        help="say whether engines for this device can be built and run here: a shipped target "
        "such as rtx-4090, sm89 or jetson-orin-nano, or 'current' for this machine's GPU",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_version(parser)
    return parser


def _examine(target: str | None, *, as_json: bool) -> int:
    from swise_engines.doctor import abilities as doctor  # --help must not wait for it
    from swise_engines.doctor.examination import examine, this_machine

    seen = examine(this_machine())
    abilities, advice = doctor.list_abilities(seen), doctor.give_advice(seen)
    verdict = doctor.judge_target(seen, target) if target else None
    if as_json:
        document = _as_document(seen, abilities, advice, verdict)
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        _show(seen, abilities, advice, verdict)
    return 0 if verdict is None or verdict.build.works else BackendMissingError.exit_code


def _as_document(
    seen: "Examination",
    abilities: "list[Ability]",
    advice: "list[Advice]",
    verdict: "TargetVerdict | None",
) -> dict[str, object]:
    facts = {
        title: {fact.name: {"value": fact.value, "reason": fact.reason} for fact in section}
        for title, section in seen.sections.items()
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "facts": facts,
        "abilities": [dataclasses.asdict(ability) for ability in abilities],
        "advice": [dataclasses.asdict(item) for item in advice],
        "target": None if verdict is None else dataclasses.asdict(verdict),
    }


def _show(
    seen: "Examination",
    abilities: "list[Ability]",
    advice: "list[Advice]",
    verdict: "TargetVerdict | None",
) -> None:
    from rich.console import Console  # not needed for --json

    console = Console(highlight=False)
    for title, section in seen.sections.items():
        console.rule(f"[bold]{title}", align="left")
        for fact in section:
            _show_fact(console, fact)
    console.rule("[bold]what works", align="left")
    for ability in abilities:
        _show_ability(console, ability, ability.name)
    for item in advice:
        console.print(f"[yellow]![/] {item.what}", soft_wrap=True)
        _show_commands(console, item.mend)
    if verdict:
        console.rule(f"[bold]target {verdict.target}", align="left")
        _show_ability(console, verdict.build, "build here")
        _show_ability(console, verdict.run, "run here")


def _show_fact(console: "Console", fact: "Fact") -> None:
    stem, _, suffix = fact.name.rpartition("_")
    unit = _UNITS.get(suffix) if stem else None
    name = (stem if unit else fact.name).replace("_", " ")
    if fact.value is None:
        console.print(f"  {name:<22} [dim]unknown:[/] ", end="")
        console.print(fact.reason, style="dim", markup=False, soft_wrap=True)
    else:
        console.print(f"  {name:<22} ", end="")
        value = ("no", "yes")[fact.value] if isinstance(fact.value, bool) else str(fact.value)
        console.print(f"{value} {unit}" if unit else value, markup=False, soft_wrap=True)


def _show_ability(console: "Console", ability: "Ability", name: str) -> None:
    mark = "[green]yes[/]" if ability.works else "[red]no [/]"
    console.print(f"{mark} {name}: ", end="", soft_wrap=True)
    console.print(ability.why, markup=False, style="dim", soft_wrap=True)
    _show_commands(console, ability.mend)


def _show_commands(console: "Console", commands: tuple[str, ...]) -> None:
    for command in commands:
        console.print(f"      $ {command}", markup=False, style="bold", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

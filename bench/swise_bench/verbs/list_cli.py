"""`swise list`: networks, shipped weights, targets and runtimes."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from swise_deploy.command.console import add_version, choose, hanging, run_command
from swise_deploy.command.options import CommandParser
from swise_deploy.storage.files import json_text

Listing = Literal["networks", "weights", "targets", "runtimes"]
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class ListConfig:
    """Settings of `swise list`.

    Attributes:
        listings: What to list, in order.
        as_json: True prints JSON.
    """

    listings: tuple[Listing, ...] = get_args(Listing)
    as_json: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    choices = get_args(Listing)
    parser = CommandParser(
        prog="swise list",
        description="List networks, shipped weights, targets and runtimes.",
        epilog="examples:\n  swise list\n  swise list runtimes --json\n",
    )
    parser.add_argument(
        "what", nargs="*", metavar="WHAT", help=f"{', '.join(choices)}; default: all of them"
    )
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    add_version(parser)
    parsed = parser.parse_args(argv)
    config = ListConfig(tuple(parsed.what) or choices, as_json=parsed.json)
    return run_command(lambda: _run(config))


def _run(config: ListConfig) -> int:
    for name in config.listings:
        choose(name, _LISTINGS, what="list")
    found = {name: _LISTINGS[name]() for name in config.listings}
    if config.as_json:
        sys.stdout.write(json_text(found) + "\n")
        return 0
    for name, rows in found.items():
        lines = [f"{name}:"]
        for row in rows:
            first, *rest = row.values()
            shown = [_text(value) for value in rest]
            text = f"  {first!s:<24} {'; '.join(text for text in shown if text)}"
            lines += hanging(text, indent=27)
        sys.stdout.write("\n".join(lines) + "\n\n")
    return 0


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _networks() -> list[Row]:
    from swise_deploy.networks.registry import NETWORKS

    return [
        {"name": name, "title": network.title, "scales": [f"x{s}" for s in network.scales]}
        for name, network in NETWORKS.items()
    ]


def _weights() -> list[Row]:
    from swise_deploy.checkpoints.shipped import shipped_names, shipped_onnx

    rows: list[Row] = []
    for text in shipped_names():
        network, _, scale = text.partition(" x")
        has_onnx = shipped_onnx(network, int(scale)) is not None
        rows.append(
            {"name": f"{network}:{scale}", "also": "fp16 ONNX, no torch needed" if has_onnx else ""}
        )
    return rows


def _targets() -> list[Row]:
    from swise_engines.targets.catalogue import load_targets

    return [
        {"name": t.name, "title": t.title, "sm": f"SM {t.sm}", "backends": list(t.backends)}
        for t in load_targets().values()
    ]


def _runtimes() -> list[Row]:
    from swise_bench.verbs.usable import unusable_reason
    from swise_export.runtimes.table import RUNTIMES

    return [
        {
            "name": name,
            "title": r.title,
            "takes": f"{r.takes} on a {r.device.upper()}",
            "state": unusable_reason(name) or "runs here",
        }
        for name, r in RUNTIMES.items()
    ]


_LISTINGS: dict[Listing, Callable[[], list[Row]]] = {
    "networks": _networks,
    "weights": _weights,
    "targets": _targets,
    "runtimes": _runtimes,
}


if __name__ == "__main__":
    sys.exit(main())

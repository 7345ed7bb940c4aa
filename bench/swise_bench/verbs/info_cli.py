"""`swise info`: the facts of a file."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swise_deploy.command.console import add_version, hanging, run_command
from swise_deploy.command.dependencies import install_command
from swise_deploy.command.options import CommandParser
from swise_deploy.storage.files import json_text

_EPILOG = """examples:
  swise info swisenet_x2_fp16.onnx
  swise info swisenet_x2_fp16.sm86.engine --json
  swise info weights.pth
"""


@dataclass(frozen=True, slots=True)
class InfoConfig:
    """Settings of `swise info`.

    Attributes:
        files: Files to describe.
        as_json: True prints JSON.
    """

    files: tuple[Path, ...]
    as_json: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = CommandParser(
        prog="swise info",
        description="Show what an ONNX file, engine, checkpoint, precision plan or result is.",
        epilog=_EPILOG,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    add_version(parser)
    parsed = parser.parse_args(argv)
    return run_command(lambda: _run(InfoConfig(tuple(parsed.files), as_json=parsed.json)))


def _run(config: InfoConfig) -> int:
    from swise_bench.verbs.information import inspect_file

    found = [inspect_file(path) for path in config.files]
    if config.as_json:
        documents = [{"kind": i.kind, "path": str(i.path), **_keyed(i.facts)} for i in found]
        sys.stdout.write(json_text(documents if len(documents) > 1 else documents[0]) + "\n")
        return 0
    for information in found:
        lines = [f"{information.path}: {information.kind}"]
        for name, value in information.facts.items():
            lines += hanging(f"  {name:<20} {_text(value)}", indent=23)
        sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _keyed(facts: Mapping[str, object]) -> dict[str, object]:
    return {name.lower().replace(" ", "_").replace("-", "_"): v for name, v in facts.items()}


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or f"nothing installed: {install_command('openvino')}"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and 0 < value <= 1:
        return f"{value:.1%}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main())

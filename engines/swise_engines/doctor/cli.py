"""`swise-doctor`: this machine, what works on it, and the commands that fix what does not."""

import argparse
import json
import sys
from collections.abc import Sequence

from swise_deploy.command.console import add_version, rich_console, run_command
from swise_deploy.command.options import CommandParser
from swise_deploy.errors import BackendMissingError


def main(argv: Sequence[str] | None = None) -> int:
    """Run swise-doctor: 0 where the machine was examined, 3 where a target is not served."""
    arguments = _parser().parse_args(argv)
    target: str | None = arguments.target
    as_json: bool = arguments.json

    def run() -> int:
        from swise_engines.doctor.report import DoctorConfig, examine_for  # after --help

        report = examine_for(DoctorConfig(target))
        if as_json:
            sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
        else:
            from swise_engines.doctor.screen import show_report  # not needed for --json

            show_report(report, rich_console(highlight=False))
        return 0 if report.is_served else BackendMissingError.exit_code

    return run_command(run)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="swise-doctor",
        description="Show this machine: GPU, drivers, TensorRT, power mode, memory; what works, "
        "what does not, and the command that fixes it. Nothing is changed.",
        epilog="examples:\n  swise-doctor\n  swise-doctor --target jetson-orin-nano\n"
        "  swise-doctor --target jetson\n\n"
        "exit codes: 0 examined, 2 unknown target, 3 the target cannot be served here",
    )
    parser.add_argument(
        "--target",
        metavar="NAME",
        help="report whether engines for this device can be built and run here: a shipped target "
        "such as rtx-4090, sm89 or jetson-orin-nano, 'current' for this machine's GPU, or a family "
        "(jetson, rtx, datacenter) to list its targets",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_version(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())

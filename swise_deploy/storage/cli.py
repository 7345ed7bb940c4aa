"""`swise cache`: show and clear the results that commands cache."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from swise_deploy.command.console import add_version, choose, run_command
from swise_deploy.command.options import CommandParser
from swise_deploy.errors import OutputError
from swise_deploy.storage.caches import CacheKind, cache_folder
from swise_deploy.storage.files import json_text

_CONTENTS: dict[CacheKind, str] = {
    "bench": "networks that swise-bench exported",
    "exported": "networks that swise-upscale exported",
    "fastest": "the fastest runner for each network",
    "int8": "sensitivities of layers to INT8",
    "interfaces": "input and output of ONNX files",
    "receptive_fields": "overlap of tiles, for each network",
    "runtime_checks": "quantised files in the runtimes that were named for them",
    "training": "decoded pictures and pictures of teachers",
}


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Settings of `swise cache`.

    Attributes:
        kinds: Kinds of caches; empty for all of them.
        clear: Delete them instead of showing them.
        as_json: Print JSON.
    """

    kinds: tuple[CacheKind, ...] = ()
    clear: bool = False
    as_json: bool = False


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run the command line; return the exit code."""
    parser = CommandParser(
        prog="swise cache",
        description="Show or clear the results that commands cache.",
        epilog="examples:\n  swise cache\n  swise cache bench --clear\n",
    )
    kinds = get_args(CacheKind)
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"{', '.join(kinds)}; default: all of them"
    )
    parser.add_argument("--clear", action="store_true", help="delete the cached results")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_version(parser)
    parsed = parser.parse_args(arguments)
    config = CacheConfig(tuple(parsed.kinds), clear=parsed.clear, as_json=parsed.json)
    return run_command(lambda: run_cache(config))


def run_cache(config: CacheConfig) -> int:
    """Show or clear the caches; return the exit code.

    Raises:
        OutputError: A file cannot be deleted.
    """
    kinds: tuple[CacheKind, ...] = config.kinds or get_args(CacheKind)
    for kind in kinds:
        choose(kind, get_args(CacheKind), what="kind of cache")
    rows = {kind: _measured(cache_folder(kind)) for kind in kinds}
    if config.clear:
        for kind in kinds:
            _clear(cache_folder(kind))
    if config.as_json:
        document = {
            "folder": str(cache_folder()),
            "cleared": config.clear,
            "kinds": {
                kind: {"num_files": number, "size_bytes": size}
                for kind, (number, size) in rows.items()
            },
        }
        sys.stdout.write(json_text(document) + "\n")
        return 0
    lines = [f"{'deleted from' if config.clear else 'kept in'} {cache_folder()}:"]
    lines += [
        f"  {kind:<17} {number:>6} files {size / 2**20:>9.1f} MiB  {_CONTENTS[kind]}"
        for kind, (number, size) in rows.items()
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _measured(folder: Path) -> tuple[int, int]:
    """Number of files in a folder, and their bytes."""
    sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()]
    return len(sizes), sum(sizes)


def _clear(folder: Path) -> None:
    try:
        if folder.is_symlink():
            folder.unlink()
        elif folder.is_dir():
            shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(
            f"cannot delete {folder}: {error.strerror or error}. Delete it by hand"
        ) from error


if __name__ == "__main__":
    sys.exit(main())

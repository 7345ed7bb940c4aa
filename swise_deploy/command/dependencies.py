"""Optional packages: imported on demand; errors name the command that installs them."""

import importlib
import json
import re
import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlparse

from swise_deploy.errors import BackendMissingError, first_line

_NAME = "swise-deploy"
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Dotted module name, e.g. "tensorrt_rtx"; a module of this project stands for
            the packages that it imports.
        extra: The extra of swise-deploy that installs it.
        purpose: What it is needed for, as in "building an engine".

    Raises:
        BackendMissingError: The package is absent, or fails when it is imported.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        # Packages built for other versions of what they import raise anything.
        if not isinstance(error, (ImportError, OSError)) and module.startswith("swise_"):
            raise
        raise BackendMissingError(
            f"{purpose} needs the package {_culprit(module, error)!r}, which does not import here: "
            f"{first_line(error)}. "
            f"Install it with: {install_command(extra)}"
        ) from error


def install_command(*extras: str, beside: Sequence[str] = (), pip: str = "pip") -> str:
    """The command that adds extras to this installation, from where it came from.

    pip records the origin of a distribution in its metadata (PEP 610): a folder, editable or not,
    a wheel, a git repository, a URL; without a record it came from an index. Where the folder or
    wheel is gone, the command names the packages of the extras instead.

    Args:
        extras: Names of extras, such as "rtx".
        beside: Other requirements of the same command, such as "tensorrt<12".
        pip: The pip to call.
    """
    words = [*beside, *_requirements(extras)]
    return " ".join(
        [pip, "install", *(word if word == "-e" else shlex.quote(word) for word in words)]
    )


def onnxruntime_missing(error: ImportError) -> BackendMissingError | None:
    """The error for an ONNX Runtime that does not import; None for another package's.

    Its packages exclude each other: an environment holds one of onnxruntime, onnxruntime-gpu,
    onnxruntime-openvino and the builds for Jetsons. So the base install brings none.
    """
    if (error.name or "").partition(".")[0] != "onnxruntime":
        return None
    return BackendMissingError(
        f"this needs ONNX Runtime, which does not import here: {first_line(error)}. Install one of "
        f"its packages, which exclude each other: {install_command('cpu')}, or with [gpu] in the "
        "place of [cpu] for CUDA. Where one is installed already, swise-doctor prints the repair"
    )


def _requirements(extras: Sequence[str]) -> list[str]:
    name = f"{_NAME}[{','.join(extras)}]"
    # The .egg-info of a checkout has no METADATA; pip's own record has.
    found = [d for d in metadata.distributions(name=_NAME) if d.read_text("METADATA")]
    if not found:
        return _of_checkout(extras) or [name]
    distribution = found[0]
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = str(origin.get("url", ""))
    if not url:
        return [name]
    if url.startswith("file:") and "vcs_info" not in origin:
        path = Path(unquote(urlparse(url).path))
        if not path.exists():
            return _packages(distribution, extras)
        editable = origin.get("dir_info", {}).get("editable", False)
        return [*(["-e"] if editable else []), f"{path}[{','.join(extras)}]"]
    vcs = origin.get("vcs_info", {})
    revision = f"@{vcs['requested_revision']}" if "requested_revision" in vcs else ""
    return [f"{name} @ {vcs['vcs']}+{url}{revision}" if vcs else f"{name} @ {url}"]


def _of_checkout(extras: Sequence[str]) -> list[str]:
    checkout = Path(__file__).resolve().parents[2]
    found = (checkout / "pyproject.toml").is_file()
    return ["-e", f"{checkout}[{','.join(extras)}]"] if found else []


def _packages(distribution: metadata.Distribution, extras: Sequence[str]) -> list[str]:
    """The requirements that extras add to a distribution; its own extras are resolved."""
    found: list[str] = []
    for line in distribution.requires or []:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        clauses = re.split(r"\s+and\s+", marker)
        extra = next((_EXTRA.fullmatch(clause) for clause in clauses if "extra" in clause), None)
        if extra is None or extra[1] not in extras:
            continue
        if requirement.startswith(f"{_NAME}["):
            own = requirement.partition("[")[2].rstrip("]").split(",")
            found += _packages(distribution, [name.strip() for name in own])
            continue
        rest = " and ".join(clause for clause in clauses if clause != extra[0])
        found.append(f"{requirement}; {rest}" if rest else requirement)
    return list(dict.fromkeys(found))


def _culprit(module: str, error: Exception) -> str:
    absent = getattr(error, "name", None) or module
    return module if absent.partition(".")[0] == module.partition(".")[0] else absent


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, which is not imported; None where it is not here."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None

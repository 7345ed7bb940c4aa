"""Check that a runtime computes a quantised file as the file states, once for each file.

A runtime may compute another function without a word: OpenVINO 2026.4 takes 3.9 dB from an INT8
file that was made for TensorRT (docs/precision.md). So one photograph runs in the runtime that the
user names and, with exact Q/DQ arithmetic, in ONNX Runtime.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from swise_deploy.errors import InputError, QualityGateError
from swise_deploy.precision import QUANTISED_OR_ROUNDED
from swise_deploy.storage.documents import read_cached, write_cached
from swise_engines.choosing.candidates import Candidate
from swise_engines.choosing.fastest import processor_model
from swise_engines.choosing.photographs import drift_on_photographs
from swise_export.counting import precision_of_file
from swise_export.interface.onnx_file import OnnxFile, read_onnx_file
from swise_export.manifest import Manifest, read_manifest
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.runtimes.table import RUNTIMES
from swise_export.verification.budget import DEFAULT_DRIFT_DB

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class _CachedDrift:
    """PSNR-Y of a photograph in a runtime minus that of exact arithmetic, in the cache."""

    drift_db: float
    schema_version: int = SCHEMA_VERSION


def check_agreement(candidate: Candidate, *, cache: Path, threads: int | None = None) -> None:
    """Refuse a runtime in which a quantised file loses more than the file's budget.

    Args:
        candidate: The runtime that the user named, and an ONNX file.
        cache: Folder of results, by the content of the file, the runtime and the processor.
        threads: CPU threads; None where the runtimes decide.

    Raises:
        QualityGateError: It loses more.
        InputError: The file cannot be read or run.
    """
    file = read_onnx_file(candidate.path)
    if precision_of_file(file) not in QUANTISED_OR_ROUNDED:
        return
    facts = [file.sha256, candidate.label, processor_model()]
    cached = cache / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"
    found = read_cached(cached, _CachedDrift, schema_version=SCHEMA_VERSION)
    if found is None:
        logger.info("checking %s in %s on a photograph", candidate.path.name, candidate.label)
        found = _CachedDrift(_measure(candidate, file, threads))
        write_cached(cached, found)
    manifest = _manifest_of(file)
    budget_db = DEFAULT_DRIFT_DB
    if manifest is not None and manifest.max_drift_db is not None:
        budget_db = manifest.max_drift_db
    # Written so that NaN is refused.
    if not found.drift_db >= -budget_db:
        made_for = RUNTIMES[manifest.runtime].title if manifest is not None else "another runtime"
        raise QualityGateError(
            f"{candidate.label} loses {-found.drift_db:.2f} dB of PSNR-Y on a photograph with "
            f"{candidate.path} beyond what the file states; at most {budget_db:g} dB are allowed. "
            f"It was made for {made_for}. Use --runner onnxruntime, or export it again with "
            f"--for {candidate.runtime}"
        )


def _measure(candidate: Candidate, file: OnnxFile, threads: int | None) -> float:
    with candidate.open() as runner, OnnxRunner(file.path, threads=threads, as_device=True) as ours:
        return drift_on_photographs(runner, ours, file, num_photographs=1)


def _manifest_of(file: OnnxFile) -> Manifest | None:
    try:
        manifest = read_manifest(file.path)
    except InputError:
        return None
    return manifest if manifest.sha256 == file.sha256 and manifest.runtime in RUNTIMES else None

"""Engines that were built before, kept by everything they depend on; also timings and kernels."""

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from swise_deploy.errors import InputError, OutputError
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import remove_leftovers, sha256_of, writing
from swise_deploy.storage.ownership import reason_not_own
from swise_engines.running.checks import read_engine
from swise_engines.tensorrt.manifest import EngineManifest, write_manifest
from swise_export.manifest import manifest_path

logger = logging.getLogger(__name__)


def cache_key(facts: Mapping[str, object]) -> str:
    """A name for everything that a build depends on: equal facts, in any order, give equal keys."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class EngineCache:
    """A folder of engines, timing caches and compiled kernels, shared by processes.

    Where it cannot be used, a warning is logged and the work is done without it.
    """

    root: Path

    def engine_path(self, key: str) -> Path:
        """Place of the engine with a key; it need not exist."""
        return self.root / "engines" / key[:2] / f"{key}.engine"

    def find(self, key: str, request: Mapping[str, object]) -> tuple[bytes, EngineManifest] | None:
        """Content and manifest of a key's engine; None where there is none that can be trusted.

        An entry has to be the user's own, be the file that its manifest describes, and be what was
        requested.

        Args:
            key: Of the engine.
            request: Attributes that its manifest has to have.
        """
        path = self.engine_path(key)
        if not path.exists():
            return None
        try:
            _check_owner(path)
            plan, manifest = read_engine(path)
            assert manifest is not None
            _check_request(manifest, request)
        except InputError as error:
            logger.warning("an entry of the build cache is not used, but built again: %s", error)
            return None
        return plan, manifest

    def keep(self, key: str, plan: bytes, manifest: EngineManifest) -> None:
        """Keep an engine; a folder that cannot be written is a warning."""
        path = self.engine_path(key)
        try:
            write_engine(path, plan, manifest)
            for file in (path, manifest_path(path)):
                file.chmod(0o600)  # also where the umask lets a group write
        except OutputError as error:
            logger.warning("the engine is not kept for the next build: %s", error)

    @contextlib.contextmanager
    def locked(self, key: str, *, on_wait: Callable[[], None]) -> Iterator[bool]:
        """Let one process at a time build the engine of a key; gives whether the cache works.

        Args:
            key: Of the engine.
            on_wait: Called once before waiting for another process that builds it.
        """
        path = self.engine_path(key).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o700)  # see find
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait()
                lock.acquire()
        except (OSError, NotImplementedError) as error:  # the latter: a system without locks
            reason = getattr(error, "strerror", None) or error
            logger.warning("the build cache %s cannot be used: %s", self.root, reason)
            yield False
            return
        try:
            remove_leftovers(path.parent)
            yield True
        finally:
            lock.release()

    def timing_path(self, backend: str, version: str, device: str) -> Path:
        """The timing cache of one TensorRT version on one device; other pairs cannot use it."""
        return self.root / "timing" / f"{_slug(backend)}-{_slug(version)}-{_slug(device)}.cache"

    def runtime_path(self, version: str, device: str) -> Path:
        """Kernels that TensorRT for RTX compiled on one device, for one version."""
        return self.root / "runtime" / f"tensorrt_rtx-{_slug(version)}-{_slug(device)}.cache"


def write_engine(path: Path, plan: bytes, manifest: EngineManifest) -> EngineManifest:
    """Write an engine with its manifest; returns the manifest with the hash of the file.

    Raises:
        OutputError: One of them cannot be written.
    """
    with writing(path) as temporary:
        temporary.write_bytes(plan)
        manifest = manifest.of_engine(sha256_of(temporary))
        # Between the two renames the older engine lies beside the newer manifest, and is refused.
        write_manifest(path, manifest)
    return manifest


def _check_owner(path: Path) -> None:
    for file in (path.parent, path, manifest_path(path)):
        if reason := reason_not_own(file):
            raise InputError(reason)


def _check_request(manifest: EngineManifest, request: Mapping[str, object]) -> None:
    for name, wanted in request.items():
        found = getattr(manifest, name)
        if found != wanted:
            raise InputError(f"its {name} is {_short(found)}, but {_short(wanted)} was requested")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def default_cache() -> EngineCache:
    """The user's own cache folder, by the conventions of the platform."""
    return EngineCache(cache_folder())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")

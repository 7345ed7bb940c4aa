"""Engines kept by what they were made from, and the timing caches of each device and version."""

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
from swise_engines.running.checks import admit_file
from swise_engines.tensorrt.manifest import EngineManifest

logger = logging.getLogger(__name__)


def cache_key(facts: Mapping[str, object]) -> str:
    """A name for everything that a build depends on: equal facts, in any order, give equal keys."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class BuildCache:
    """A folder of engines and timing caches, shared by processes."""

    root: Path

    def engine_path(self, key: str) -> Path:
        """Where the engine of a key lies, if it was ever built."""
        return self.root / "engines" / key[:2] / f"{key}.engine"

    def find(self, key: str) -> tuple[Path, EngineManifest] | None:
        """The engine of a key with its manifest; None where there is none that is whole."""
        path = self.engine_path(key)
        if not path.exists():
            return None
        try:
            manifest = admit_file(path)
        except InputError as error:
            logger.warning("left a damaged entry of the build cache out: %s", error)
            return None
        return None if manifest is None else (path, manifest)

    @contextlib.contextmanager
    def locked(self, key: str, *, on_wait: Callable[[], None]) -> Iterator[None]:
        """Let one process at a time build what the key names.

        Args:
            key: What is built.
            on_wait: Called once where another process is at it, before waiting for it.

        Raises:
            OutputError: The cache folder cannot be written.
        """
        path = self.engine_path(key).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait()
                lock.acquire()
        except OSError as error:
            raise OutputError(
                f"cannot lock {path}: {error.strerror or error}. Give another folder with "
                "--cache-dir, or leave the cache out with --no-cache"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def timing_path(self, backend: str, version: str, device: str) -> Path:
        """The timing cache of one TensorRT version on one device; other pairs cannot use it."""
        return self.root / "timing" / f"{_slug(backend)}-{_slug(version)}-{_slug(device)}.cache"

    def runtime_path(self, version: str, device: str) -> Path:
        """Kernels that TensorRT for RTX compiled on one device, for one version."""
        return self.root / "runtime" / f"tensorrt_rtx-{_slug(version)}-{_slug(device)}.cache"


def default_cache() -> BuildCache:
    """The user's own cache folder, by the conventions of the platform."""
    return BuildCache(cache_folder())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")

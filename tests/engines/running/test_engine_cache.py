"""Entries of the build cache: used only where they are the user's own, whole, and as requested."""

import json
import logging
import os
import shutil
import stat
from pathlib import Path

import pytest

from swise_engines.building.build import Built
from swise_engines.running.engine_cache import EngineCache
from swise_export.manifest import manifest_path

KEY = "ab" * 32
REQUESTED = ("onnx_sha256", "backend", "backend_version", "sms", "profiles", "precision_asked")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


@pytest.fixture
def entry(cache: EngineCache, sm86: Built) -> Path:
    """A kept engine."""
    cache.keep(KEY, sm86.path.read_bytes(), sm86.manifest)
    return cache.engine_path(KEY)


@pytest.fixture
def request_of_entry(sm86: Built) -> dict[str, object]:
    return {name: getattr(sm86.manifest, name) for name in REQUESTED}


def test_a_kept_engine_is_found(cache, entry, request_of_entry, sm86):
    found = cache.find(KEY, request_of_entry)
    assert found is not None
    assert found == (entry.read_bytes(), sm86.manifest)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("onnx_sha256", "0" * 64),
        ("backend_version", "1.7.0.1"),
        ("backend", "tensorrt"),
        ("sms", ("8.9",)),
        ("profiles", ()),
        ("precision_asked", "int8"),
    ],
)
@pytest.mark.usefixtures("entry")
def test_an_engine_of_another_request_is_not_used(cache, request_of_entry, caplog, name, other):
    assert cache.find(KEY, {**request_of_entry, name: other}) is None
    assert f"its {name} is" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"sms": [[]]},
        {"engine_bytes": None},
        {"engine_bytes": "x"},
        {"scale": {}},
        {"interface": 5},
        {"profiles": "all"},
        {"backend": "this"},
        {"kind": 1},
    ],
)
def test_a_manifest_of_wrong_types_is_not_used(cache, entry, request_of_entry, caplog, change):
    path = manifest_path(entry)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert cache.find(KEY, request_of_entry) is None
    assert "is not used, but built again" in caplog.text


@pytest.mark.parametrize("part", ["engine", "manifest", "folder"])
def test_what_other_users_may_write_is_not_used(cache, entry, request_of_entry, caplog, part):
    path = {"engine": entry, "manifest": manifest_path(entry), "folder": entry.parent}[part]
    path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IWOTH)
    assert cache.find(KEY, request_of_entry) is None
    assert "can be written by other users" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_not_used(cache, entry, request_of_entry, caplog):
    os.chown(entry, 12345, -1)
    assert cache.find(KEY, request_of_entry) is None
    assert "uid 12345" in caplog.text


def test_a_group_writable_umask_keeps_entries_usable(cache, sm86, request_of_entry):
    before = os.umask(0o002)
    try:
        with cache.locked(KEY, on_wait=pytest.fail) as is_usable:
            assert is_usable
            cache.keep(KEY, sm86.path.read_bytes(), sm86.manifest)
        assert cache.find(KEY, request_of_entry) is not None
    finally:
        os.umask(before)


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    cache = EngineCache(tmp_path / "file")
    with cache.locked(KEY, on_wait=pytest.fail) as is_usable:
        assert not is_usable
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING


def test_leftovers_of_killed_builds_are_removed(cache, entry):
    dead = entry.with_name(f".{entry.stem}.swise-0123abcd.engine")
    shutil.copy(entry, dead)
    os.utime(dead, (1, 1))
    with cache.locked(KEY, on_wait=pytest.fail):
        pass
    assert not dead.exists()
    assert entry.exists()

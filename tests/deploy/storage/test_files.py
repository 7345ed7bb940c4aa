import json
import math
import os
import resource
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from swise_deploy.errors import InputError, OutputError
from swise_deploy.pictures.files import read_rgb
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.documents import read_document
from swise_deploy.storage.files import (
    append_json_line,
    json_text,
    read_json_lines,
    read_regular,
    refuse_unwritable_path,
    scratch,
    sha256_of,
    staging,
    write_json,
    writing,
)


def write_bytes(temporary: Path) -> None:
    temporary.write_bytes(bytes(400_000))


def save_safetensors(temporary: Path) -> None:
    save_file({"a": torch.zeros(100_000)}, temporary)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 100 kB; what Python ignores, a signal, becomes an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(path: Path, save: Callable[[Path], None]) -> None:
    with writing(path) as temporary:
        save(temporary)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("save", [write_bytes, save_safetensors])
def test_a_full_disk_is_reported_with_the_requested_path(
    tmp_path: Path, save: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.bin"
    with pytest.raises(OutputError, match=f"^cannot write {path}: File too large"):
        write(path, save)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is always full")
def test_a_full_disk_is_reported_where_the_library_does_not_name_it(tmp_path: Path) -> None:
    def save(temporary: Path) -> None:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        torch.save({"a": torch.zeros(100_000)}, temporary)

    path = tmp_path / "a.pt"
    with pytest.raises(OutputError, match=f"^cannot write {path}: No space left on device"):
        write(path, save)
    assert list(tmp_path.iterdir()) == []


def test_threads_that_write_together_give_files_the_usual_permissions(tmp_path: Path) -> None:
    def write_many(name: str) -> set[int]:
        paths = [tmp_path / f"{name}{i}.bin" for i in range(100)]
        for path in paths:
            write(path, lambda temporary: temporary.touch())
        return {stat.S_IMODE(path.stat().st_mode) for path in paths}

    interval, mask = sys.getswitchinterval(), os.umask(0o027)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            modes = set().union(*pool.map(write_many, "abcdefgh"))
    finally:
        sys.setswitchinterval(interval)
        left = os.umask(mask)
    assert modes == {0o640}
    assert left == 0o027


@pytest.mark.parametrize("save", [write_bytes, save_safetensors])
def test_a_file_gets_the_usual_permissions_from_every_writer(
    tmp_path: Path, save: Callable[[Path], None]
) -> None:
    mask = os.umask(0o027)
    try:
        write(tmp_path / "a.bin", save)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


def test_other_errors_inside_the_block_are_not_translated(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "a.bin"):
        raise ZeroDivisionError
    with pytest.raises(InputError), writing(tmp_path / "a.bin"):
        raise InputError
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_a_staging_folder_is_reported_with_the_result_s_path(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.onnx"

    def stage() -> None:
        with staging(path) as folder:
            (folder / "a.onnx").mkdir()
            write(folder / "a.onnx", write_bytes)

    with pytest.raises(OutputError) as caught:
        stage()
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert ".a." not in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_a_staging_folder_is_beside_the_result_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    with staging(path) as folder:
        assert folder.parent == tmp_path
        (folder / "a.onnx").write_text("whole")
        (folder / "a.onnx").replace(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"), staging(tmp_path / "a.onnx"):
        pass


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("file/new.txt", "Not a directory"),
        ("folder", "Is a directory"),
        (f"folder/{'n' * 300}", "its name has 300 bytes"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_before(
    path: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=reason):
        refuse_unwritable_path(tmp_path / path)
    refuse_unwritable_path(tmp_path / "folder/deep/er/new.txt")
    assert list((tmp_path / "folder").iterdir()) == []


def test_an_incomplete_json_line_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    assert read_json_lines(path) == []
    append_json_line(path, ["first", 1])
    with path.open("a") as file:
        file.write('\n["second", 2')  # killed here
    append_json_line(path, {"third": 3.5})
    assert read_json_lines(path) == [["first", 1], {"third": 3.5}]


@pytest.mark.usefixtures("full_disk")
def test_a_json_line_on_a_full_disk_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.jsonl: File too large"):
        append_json_line(tmp_path / "a.jsonl", "x" * 200_000)


def test_nan_and_infinity_become_null_in_json(tmp_path: Path) -> None:
    document = {"a": math.nan, "b": [1.5, (math.inf, -math.inf)], "c": {"d": "NaN", "e": 3}}
    plain = {"a": None, "b": [1.5, [None, None]], "c": {"d": "NaN", "e": 3}}
    assert json.loads(json_text(document), parse_constant=pytest.fail) == plain
    write_json(tmp_path / "a.json", document)
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == plain


def test_a_cache_that_cannot_be_written_is_reported_with_the_variable_that_moves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "swise-deploy").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cache_folder("exported") / "network.onnx"
    for write in (writing, staging):
        with pytest.raises(OutputError, match="Set XDG_CACHE_HOME to a folder"), write(path):
            pass
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Choose a folder"), writing(tmp_path / "file/result"):
        pass


@pytest.mark.parametrize(
    "name", ["a" * 251 + ".png", "\N{HIRAGANA LETTER A}" * 83 + ".bin", "b" * 255]
)
def test_a_name_of_up_to_255_bytes_is_written(tmp_path: Path, name: str) -> None:
    with writing(tmp_path / name) as temporary:
        temporary.write_bytes(b"x")
    with staging(tmp_path / name) as folder:
        (folder / "y").write_bytes(b"")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_longer_name_is_refused_with_its_length(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="256 bytes"), writing(tmp_path / ("c" * 256)):
        pass


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_while_a_folder_is_staged_names_the_result(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"^cannot write {tmp_path / 'a'}: File too large"):
        stage_too_much(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def stage_too_much(path: Path) -> None:
    with staging(path) as folder:
        (folder / "large").write_bytes(bytes(400_000))


@pytest.mark.parametrize("kind", ["pipe", "device", "huge", "folder"])
def test_only_regular_files_of_a_limited_size_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(4 << 30)
    expected = {"pipe": "a pipe or a device", "device": "a pipe or a device", "folder": "directory"}
    with pytest.raises(OSError, match=expected.get(kind, "4,294,967,296 bytes")):
        read_regular(path, max_bytes=1000)
    with pytest.raises(InputError, match=r"a\.json"):
        read_document(path, dict, what="the facts", advice="")
    with pytest.raises(InputError, match=r"a\.json"):
        read_rgb(path)
    with pytest.raises(InputError, match=r"a\.json"):
        read_json_lines(path)
    if kind != "huge":
        with pytest.raises(InputError, match=r"a\.json"):
            sha256_of(path)


@pytest.fixture
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty; nothing of it was swept yet."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_scratch_folders_of_killed_runs_are_removed(temporary_files: Path) -> None:
    killed = temporary_files / ".scratch.swise-abcdefgh"
    killed.mkdir()
    (killed / "traced.onnx").write_text("half")
    others = temporary_files / "tmpabcdefgh"
    others.mkdir()
    fifo = temporary_files / ".a.swise-12345678.fifo"
    os.mkfifo(fifo)
    for path in (killed, fifo):
        os.utime(path, (0, 0))
    with scratch() as folder:
        assert folder.parent == temporary_files
        assert not killed.exists()
        with scratch() as second:
            assert folder.is_dir()
            assert second != folder
    assert set(temporary_files.iterdir()) <= {others, fifo}


def test_no_folder_for_temporary_files_is_an_error_that_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(OutputError, match="Set TMPDIR"), scratch():
        pass

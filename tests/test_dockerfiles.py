"""What the Dockerfiles copy: the package's files, without what a checkout gathers beside them."""

import fnmatch
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
IGNORED = sorted((REPOSITORY / "engines" / "docker").glob("*.dockerignore"))
PACKAGED = sorted((REPOSITORY / "swise_deploy" / "weights").iterdir())


def is_left_out(path: str, patterns: list[str]) -> bool:
    """Docker's rule: the last pattern that matches decides; "!" takes a file back."""
    found = False
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        if fnmatch.fnmatchcase(path, bare.replace("**/", "*")):
            found = not pattern.startswith("!")
    return found


@pytest.mark.parametrize("page", IGNORED, ids=lambda page: page.name)
def test_the_shipped_files_reach_the_image_and_a_user_s_artefacts_do_not(page: Path) -> None:
    patterns = page.read_text(encoding="utf-8").split()
    names = [path.relative_to(REPOSITORY).as_posix() for path in PACKAGED]
    assert [name for name in names if is_left_out(name, patterns)] == []
    assert any(name.endswith("_fp16.onnx") for name in names)
    assert is_left_out("my.onnx", patterns)
    assert is_left_out("work/my.engine", patterns)

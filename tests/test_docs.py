"""README and docs/ against the tree: links, paths, commands, options, versions, decisions."""

import contextlib
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from scripts.docs.options_table import table
from swise_deploy.command.launch import MODULES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BASE = PROJECT["urls"]["Homepage"]
PAGES = sorted(
    [
        *(REPOSITORY / "docs").rglob("*.md"),
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "swise_deploy").rglob("*.md"),
    ]
)
PAGES = [page for page in PAGES if page.name != "CHANGELOG.md"]
FENCE = re.compile(r"^```.*?^```", re.S | re.M)
ROOTS = "bench|docs|engines|examples|export|swise_deploy|tests"


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def links_of(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors_of(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    for link in links_of(page):
        target, _, anchor = link.partition("#")
        if target.startswith(BASE + "/"):
            kind, _, path = target.removeprefix(BASE + "/").partition("/main/")
            if kind in ("issues", "security/advisories/new"):
                continue
            assert kind in ("blob", "tree", "raw"), link
            file = REPOSITORY / path
        elif "://" in target:
            continue
        else:
            file = (page.parent / target) if target else page
        assert file.exists(), f"{name_of(page)}: {link}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors_of(file), f"{name_of(page)}: {link}"


def test_the_readme_has_absolute_links_alone_so_that_an_index_shows_them() -> None:
    assert all("://" in link for link in links_of(REPOSITORY / "README.md"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_the_site_stay_inside_it_or_are_absolute(page: Path) -> None:
    docs = REPOSITORY / "docs"
    if docs not in page.parents:
        return
    for link in links_of(page):
        if "://" not in link and not link.startswith("#"):
            assert docs in (page.parent / link).resolve().parents, f"{name_of(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_in_the_text_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for found in re.findall(rf"(?<![\w/.-])((?:{ROOTS})/[\w./*\[\]{{}},-]+)", text):
        path = found if "[" in found else found.rstrip("]")
        pattern = re.sub(r"\{([^}]*)\}", "*", path.rstrip(".,"))
        pattern = pattern.rstrip("/").partition("::")[0].partition("/NAME")[0]
        assert list(REPOSITORY.glob(pattern)), f"{name_of(page)}: {path}"


def shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`((?:swise|python bench)[^`]*)`", page.read_text(encoding="utf-8"))
    found = [line.removeprefix("$ ").strip() for line in [*lines, *inline]]
    first = "|".join(PROJECT["scripts"])
    return [line for line in found if re.match(rf"(?:(?:{first}) |python bench/scripts/)", line)]


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    verb = [word for word in words[1:2] if words[0] == "swise" and word.islower()]
    with contextlib.suppress(SystemExit):
        assert importlib.import_module(MODULES[words[0]]).main([*verb, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_their_options_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in shell_lines(page):
        words = shlex.split(line.split("   #")[0].split("  #")[0], comments=True)
        if words[0] == "python":
            source = (REPOSITORY / words[1]).read_text(encoding="utf-8")
            options = [w.partition("=")[0] for w in words[2:] if w.startswith("--")]
            missing = [option for option in options if f'"{option}"' not in source]
        else:
            text = help_of(words, capsys) if len(words) > 1 else "-"
            options = [w.partition("=")[0] for w in words[1:] if w.startswith("--")]
            missing = [o for o in options if not re.search(rf"{re.escape(o)}\b", text)]
        assert missing == [], f"{name_of(page)}: {line}"


def test_one_version_everywhere() -> None:
    version = importlib.import_module("swise_deploy").__version__
    assert f"\nversion: {version}\n" in (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.M)
    for page in PAGES:
        wheels = re.findall(r"swise_deploy-([\d.]+)-py3", page.read_text(encoding="utf-8"))
        assert set(wheels) <= {version}, name_of(page)


def test_decisions_have_one_form_and_are_listed() -> None:
    folder = REPOSITORY / "docs" / "adr"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    for page in sorted(folder.glob("0*.md")):
        lines = page.read_text(encoding="utf-8").splitlines()
        assert re.match(rf"# {int(page.name[:4])}\. ", lines[0]), page.name
        assert re.match(r"- Date: \d{4}-\d\d-\d\d", lines[2]), page.name
        assert lines[3].startswith("- Status: "), page.name
        headings = [line for line in lines if line.startswith("## ")]
        assert headings[0] == "## Context", page.name
        assert headings[1] == "## Decision", page.name
        assert headings[2].startswith("## Consequences"), page.name
        assert f"[{lines[0].removeprefix('# ')}]({page.name})" in listed, page.name


def test_the_table_of_options_is_that_of_the_parsers() -> None:
    page = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    assert table() in page, "run: python bench/scripts/docs/options_table.py"


def test_one_meaning_has_one_spelling() -> None:
    """What an output, a size and LR pictures are called in every command that takes them."""
    rows = dict(re.findall(r"^\| (?:`-\w`, )?`(--[\w-]+)` \| (.+) \|$", table(), re.M))
    assert {"train", "export", "build", "bench", "upscale"} <= set(rows["--output"].split(", "))
    assert {"train", "export", "bench"} <= set(rows["--lr-images"].split(", "))
    assert not rows.keys() & {"--out", "--lr", "--cache-dir", "--lr-size", "--calib-cache"}

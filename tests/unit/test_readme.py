"""The project's documents say what is true of the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from glm3._version import __version__
from glm3.entrypoints.cli.reference import reference

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_both_readmes_have_the_same_code() -> None:
    english, chinese = BLOCK.findall(text("README.md")), BLOCK.findall(text("README.zh-CN.md"))
    assert len(english) >= 8
    assert english == chinese


def test_both_readmes_have_the_same_chapters_and_inline_commands() -> None:
    english, chinese = text("README.md"), text("README.zh-CN.md")
    assert english.count("\n## ") == chinese.count("\n## ")
    inline = re.compile(r"`([^`\n]+)`")
    assert sorted(set(inline.findall(english))) == sorted(set(inline.findall(chinese)))


def test_the_reference_of_the_command_line_is_current() -> None:
    """Remake it with ``python -m glm3.entrypoints.cli.reference > docs/cli.md``."""
    assert text("docs/cli.md") == reference()


def test_every_make_target_that_is_mentioned_exists() -> None:
    listed = subprocess.run(
        ["make", "-s", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    targets = set(re.findall(r"make ([a-z-]+)", listed))
    mentioned = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"(?:^|`|&& )make ([a-z-]+)", document.read_text(encoding="utf-8"), re.M)
    } - {"help"}
    assert {"demo", "test", "setup", "check"} <= mentioned
    assert mentioned <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_files_that_are_named_exist() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        named = re.findall(r"`((?:src|tests|configs|docs)/[\w./-]+)`", text(document))
        assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_the_licence_is_the_one_that_is_named() -> None:
    licence = text("LICENSE")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert 'license = "Apache-2.0"' in text("pyproject.toml")


def test_the_changelog_has_a_place_for_this_version() -> None:
    assert re.search(rf"^## \[(Unreleased|{re.escape(__version__)})\]", text("CHANGELOG.md"), re.MULTILINE)

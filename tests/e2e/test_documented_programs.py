"""The programs under docs/examples print what docs/programs.md shows."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from support.cli import REPOSITORY

TEXT = (REPOSITORY / "docs/programs.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chat", "multi_role"])
def test_a_program_prints_its_transcript(name: str) -> None:
    shown = re.search(rf"{name}\.py\) prints:\n\n```text\n(.*?)```", TEXT, re.DOTALL)
    assert shown is not None
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / f"docs/examples/{name}.py")],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    printed = [line for line in done.stdout.splitlines() if line and "WARNING" not in line]
    assert printed == [line for line in shown[1].splitlines() if line]

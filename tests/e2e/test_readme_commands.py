"""The README's commands and its Python program run as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import REPOSITORY

pytestmark = pytest.mark.slow

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if "glm3 " in line and not re.search("chatglm3-6b|glm3_6b", line)
]
"""Without those that need the real weights."""


def run(command: list[str] | str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GLM3_")}
    return subprocess.run(
        command, shell=isinstance(command, str), cwd=folder, input="你好", capture_output=True,
        text=True, encoding="utf-8", timeout=240,
        env={**environment, "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a place that looks like the checkout to the commands, so that they leave nothing in it."""
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    return tmp_path


def test_the_commands_were_found() -> None:
    assert len(COMMANDS) >= 8
    assert {command.split("glm3 ")[1].split()[0] for command in COMMANDS} >= {
        "doctor", "chat", "predict", "run", "config"
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_works(command: str, folder: Path) -> None:
    """Standard input is one message: a chat answers it instead of waiting for a person."""
    if "output/model" in command:  # what the line before it has trained
        run(COMMANDS[COMMANDS.index(command) - 1], folder)
    done = run(command, folder)
    assert "error" not in done.stderr
    assert done.stdout.strip()
    assert done.returncode == 0


def test_the_python_program_of_the_readme_works(folder: Path) -> None:
    (program,) = [block for language, block in BLOCKS if language == "python"]
    done = run([sys.executable, "-c", program], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

"""Starting the command line is cheap until there is work to do."""

from __future__ import annotations

import re
import resource

import pytest

from support.cli import glm3

LIGHT = [
    ("--help",),
    ("--version",),
    ("--show-completion", "bash"),
    ("chat", "--help"),
    ("doctor", "--help"),
]
HEAVY = ("mindspore", "numpy", "structlog", "prompt_toolkit", "torch", "dependency_injector")


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_nothing_heavy_is_imported_without_work(arguments: tuple[str, ...]) -> None:
    done = glm3(*arguments, python_options=("-X", "importtime"))
    imported = {match.group(1).split(".")[0] for match in re.finditer(r"\|\s+([\w.]+)$", done.stderr, re.M)}
    assert "typer" in imported, "the import log was not read"
    assert imported & set(HEAVY) == set()


def test_completion_imports_nothing_heavy() -> None:
    done = glm3(
        python_options=("-X", "importtime"),
        environment={"_GLM3_COMPLETE": "complete_bash", "COMP_WORDS": "glm3 do", "COMP_CWORD": "1"},
    )
    assert "doctor" in done.stdout.split()
    assert not re.search(r"\|\s+(mindspore|numpy)$", done.stderr, re.M)


def test_help_needs_less_than_three_tenths_of_a_second_of_the_processor() -> None:
    """Processor time, and the best of five runs: a busy machine does not make it longer."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert glm3("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.3

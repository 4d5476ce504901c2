"""The program in docs/tools.md runs, and the embedded model uses its function."""

from __future__ import annotations

import re

import pytest

from support.cli import REPOSITORY, glm3

TEXT = (REPOSITORY / "docs/tools.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_function_is_called_and_its_result_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM3_BACKEND", "numpy")
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    named: dict[str, object] = {"__name__": "program"}
    exec(compile(program, "docs/tools.md", "exec"), named)
    observed = named["chat"].messages[-2]  # type: ignore[attr-defined]
    assert observed.content == '{"city": "青岛", "weather": "晴", "temperature": 22}'
    assert "22" in capsys.readouterr().out


def test_the_command_line_offers_what_the_document_lists() -> None:
    listed = re.findall(r"^\| `(\w+)` \| [a-z]", TEXT, re.MULTILINE)
    refused = glm3("chat", "-p", "x", "--tool", "os.system", "--yes")
    assert refused.returncode == 2
    assert "--tool: no such tool" in refused.stderr
    for name in ("calculator", "clock"):
        assert name in listed
        assert name in refused.stderr

"""How far a long job is: lines in a log, a bar at a terminal."""

from __future__ import annotations

import sys

import pytest

from glm3.entrypoints.cli import progress as shown
from glm3.entrypoints.cli.progress import counting, progress

CURSOR_BACK = "\x1b[?25h"


def test_a_log_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 1.0, 6.0, 6.0, 7.0, 12.0, 12.0])
    monkeypatch.setattr(shown.time, "monotonic", lambda: next(now))
    with counting("rows encoded") as report:
        for done in (10, 20, 30, 40):
            report(done, 40)
    assert capsys.readouterr() == ("", "20 of 40 rows encoded\n40 of 40 rows encoded\n")


def test_a_terminal_gets_a_bar_that_leaves_when_all_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with counting("rows encoded") as report:
        report(10, 40)
        assert CURSOR_BACK not in capsys.readouterr().err
        report(40, 40)
        answers, drawn = capsys.readouterr()
        assert CURSOR_BACK in drawn, "the next one may draw"
    assert answers == ""
    assert "rows encoded" in drawn
    assert "40/40" in drawn


def test_bytes_are_shown_at_a_terminal_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("merging") as report:
        report(10_000_000, 40_000_000, "a tensor")
    assert "10.0/40.0 MB" in capsys.readouterr().err


def test_work_that_was_done_already_and_quiet_work_draw_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with counting("rows encoded"):
        pass
    with counting("rows encoded", quiet=True) as report:
        report(1, 2)
    assert capsys.readouterr() == ("", "")

"""``glm3 doctor``: check the machine."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glm3.entrypoints.cli.command import settings_of
from glm3.entrypoints.cli.output import answer, answer_json, note

if TYPE_CHECKING:
    from glm3.application.doctor import DoctorReport
    from glm3.domain.finding import Finding

__all__ = ["EPILOG", "doctor"]

EPILOG = """\
\b
Examples:
  glm3 doctor
  glm3 doctor --quick            without starting MindSpore
  glm3 doctor --json > doctor.json   for a bug report
  glm3 doctor --ascend           on a machine with a card: every fused operator beside the plain one
  glm3 doctor --collect-logs logs.tar.gz   after "Sync stream failed" or "exec graph failed"
"""
COLOURS = {"OK": "green", "WARN": "yellow", "FAIL": "red"}


def doctor(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="Do not start MindSpore.")] = False,
    ascend: Annotated[
        bool, typer.Option("--ascend", help="Run every fused operator on the card beside the plain one.")
    ] = False,
    collect_logs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.tar.gz",
            help="Write the newest logs of driver, CANN and MindSpore, and this report, into one file.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check this machine and say what to do: versions, MindSpore, memory, compiler, Ascend.

    Ends with exit code 1 if anything is marked FAIL.
    """
    from glm3.application.doctor import examine, judge_operators
    from glm3.domain.finding import Status
    from glm3.entrypoints.cli.loading import container

    parts = container(settings_of(context))
    if ascend:
        note("running the fused operators on the card ...")
        report = judge_operators(parts.host(), parts.operator_test())
    else:
        if not quick:
            note("starting MindSpore for its self-test ...")
        report = examine(parts.host(), start_runtime=not quick)
    if as_json:
        answer_json(_facts(report))
    else:
        _print(report)
    if collect_logs is not None:
        collected = parts.host_logs().collect(collect_logs, json.dumps(_facts(report)).encode())
        left_out = f", {collected.left_out} older ones left out" if collected.left_out else ""
        note(f"{collected.path}: this report and {len(collected.files)} log files{left_out}")
    if report.status is Status.FAIL:
        raise typer.Exit(1)


def _facts(report: DoctorReport) -> dict[str, Any]:
    from attrs import asdict

    return {"status": report.status, "findings": [asdict(finding) for finding in report.findings]}


def _print(report: DoctorReport) -> None:
    width = max(len(finding.name) for finding in report.findings)
    for finding in report.findings:
        for line in _lines(finding, width):
            answer(line)
    counts = [sum(f.status == status for f in report.findings) for status in COLOURS]
    answer(f"\n{counts[0]} OK, {counts[1]} WARN, {counts[2]} FAIL")


def _lines(finding: Finding, width: int) -> list[str]:
    columns = max(60, shutil.get_terminal_size((100, 24)).columns)
    status = typer.style(f"{finding.status:<4}", fg=COLOURS[finding.status])
    indent = " " * (width + 7)
    text = textwrap.wrap(
        finding.found, columns - len(indent), break_on_hyphens=False, break_long_words=False
    ) or [""]
    lines = [f"{status}  {finding.name:<{width}} {text[0]}", *(indent + part for part in text[1:])]
    advice = textwrap.wrap(
        finding.advice, columns - len(indent) - 3, break_on_hyphens=False, break_long_words=False
    )
    return lines + [
        f"{indent}{'-> ' if not position else '   '}{part}" for position, part in enumerate(advice)
    ]

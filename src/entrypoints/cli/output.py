"""Where things are printed: answers on standard output, everything else on standard error."""

from __future__ import annotations

import json
from typing import Any

import typer

__all__ = ["answer", "answer_json", "answer_json_line", "note"]


def answer(text: str, *, end: str = "\n") -> None:
    """Print a part of the answer at once."""
    typer.echo(text + end, nl=False)


def answer_json(value: Any) -> None:
    """Print the answer as one JSON document; Chinese stays readable."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def answer_json_line(value: Any) -> None:
    """Print one JSON object on one line."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def note(text: str = "", *, end: str = "\n") -> None:
    """Print something that is not the answer."""
    typer.echo(text + end, nl=False, err=True)

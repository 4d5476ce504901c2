"""Turn an exception into one clean message and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback

import typer

from glm3.domain.errors import Glm3Error

__all__ = ["INTERRUPTED", "describe", "report"]

FAILED = 1
USED_WRONGLY = 2
INTERRUPTED = 130


def report(error: BaseException, *, debug: bool = False) -> int:
    """Print ``error`` on standard error, with its traceback if ``debug``, and return the exit code."""
    if isinstance(error, KeyboardInterrupt):
        typer.echo("interrupted", err=True)
        return INTERRUPTED
    message, code = describe(error)
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    typer.echo(message, err=True)
    return code


def describe(error: BaseException) -> tuple[str, int]:
    """Return what to print about ``error``, and the exit code it means."""
    if isinstance(error, Glm3Error):
        return f"error: {error}", error.exit_code
    if isinstance(error, typer.Abort):
        return "interrupted", INTERRUPTED
    if isinstance(error, typer.TyperException):
        return _usage(error), error.exit_code
    if isinstance(error, MemoryError):
        return "error: out of memory\nhint: glm3 doctor says how much memory a model needs", FAILED
    if isinstance(error, OSError) and error.filename is not None:
        return f"error: {error.filename}: {error.strerror}", FAILED
    if (
        isinstance(error, OSError) and error.errno == errno.ENOSPC
    ):  # of a stream: standard output, for example
        return f"error: {error.strerror}\nhint: free some space where the output goes", FAILED
    name = type(error).__name__
    return f"error: unexpected {name}: {error}\nhint: run again with --debug to see where", FAILED


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    text = error.format_message().rstrip()
    if text.startswith("Usage:"):  # a group that was given nothing shows its help
        return text
    text = text.replace("Value error, ", "")
    command = context.command_path if context is not None else "glm3"
    return f"error: {text[:1].lower()}{text[1:]}\nhint: {command} --help"

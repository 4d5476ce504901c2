"""Write the reference of the command line from its own help: ``python -m glm3.entrypoints.cli.reference``.

``docs/cli.md`` is this text; a test fails when the two differ.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

from glm3.entrypoints.cli.app import app

__all__ = ["reference"]

WIDTH = 100
HEAD = """\
# Command line

Made from `glm3 --help` by `python -m glm3.entrypoints.cli.reference > docs/cli.md`. Do not edit.

Exit codes: 0 done, 1 failed, 2 used wrongly (or a configuration file is wrong), 130 interrupted. Answers go
to standard output, everything else to standard error. Global options may also stand behind the command.
"""


def reference() -> str:
    """Return the help of every command as Markdown."""
    root = typer.main.get_command(app)
    sections = [f"## {path}\n\n```text\n{text.strip()}\n```\n" for path, text in _helps(root, "glm3", None)]
    return "\n".join([HEAD, *sections])


def _helps(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = typer.Context(command, info_name=name, parent=parent, terminal_width=WIDTH)
    context.help_option_names = ["-h", "--help"]
    lines = command.get_help(context).splitlines()
    yield context.command_path, "\n".join(line.rstrip() for line in lines)
    for child, subcommand in getattr(command, "commands", {}).items():
        if not subcommand.hidden:
            yield from _helps(subcommand, child, context)


if __name__ == "__main__":
    sys.stdout.write(reference())

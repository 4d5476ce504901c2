"""``glm3 kernels``: compile the CPU kernels ahead of time, or see which there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from glm3.entrypoints.cli.command import Command, settings_of
from glm3.entrypoints.cli.output import answer, answer_json, note

if TYPE_CHECKING:
    from glm3.domain.ports.kernel_cache import KernelFile

__all__ = ["app"]

BUILD_EPILOG = """\
\b
Examples:
  glm3 kernels build
  CXX=clang++ glm3 kernels build
  GLM3_CACHE=/opt/glm3 glm3 kernels build     into a folder that a container image keeps
"""
LIST_EPILOG = """\
\b
Examples:
  glm3 kernels list
  glm3 kernels list --json
"""

app = typer.Typer(
    help="Compile the CPU kernels, or list those that are there.", rich_markup_mode=None, no_args_is_help=True
)


@app.command("build", cls=Command, epilog=BUILD_EPILOG)
def build(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compile the CPU kernels for this machine, unless they are there, and print where they are.

    The first model that is loaded does it otherwise. Kernels are kept by source, compiler and processor. g++
    from 11 on and clang++ from 13 on with libomp (Debian: clang libomp-dev) compile them.
    """
    from glm3.entrypoints.cli.loading import container

    built = container(settings_of(context)).kernels().build(note)
    if as_json:
        answer_json(_facts(built))
    else:
        answer(str(built.path))


@app.command("list", cls=Command, epilog=LIST_EPILOG)
def list_(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the compiled kernels; those marked with a star are for this machine and version."""
    from glm3.entrypoints.cli.loading import container

    files = container(settings_of(context)).kernels().files()
    if as_json:
        answer_json([_facts(file) for file in files])
        return
    if not files:
        note("no kernels are compiled yet: glm3 kernels build")
    for file in files:
        star = "*" if file.usable else " "
        size = f"{file.nbytes / 1e6:.1f} MB"
        answer(f"{star} {file.instructions or 'unknown':<18}  {size:>7}  {file.path}")
        answer(f"    {file.processor or 'unknown processor'}; {file.compiler or 'unknown compiler'}")


def _facts(file: KernelFile) -> dict[str, Any]:
    return {
        "path": str(file.path),
        "bytes": file.nbytes,
        "usable": file.usable,
        "instructions": file.instructions,
        "processor": file.processor,
        "compiler": file.compiler,
    }

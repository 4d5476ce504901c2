"""``glm3 merge``: an adapter into its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glm3.entrypoints.cli.command import settings_of
from glm3.entrypoints.cli.convert import Format

__all__ = ["EPILOG", "merge"]

EPILOG = """\
\b
Examples:
  glm3 merge ./output/adapter ./merged                      a folder that glm3 chat -m ./merged loads
  glm3 merge ./output/adapter merged.ckpt --to ckpt --verify
  glm3 merge ./output/adapter ./merged --base ./chatglm3-6b
"""


def merge(
    context: typer.Context,
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The folder of a LoRA adapter.")],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="What to write: a folder for hf, else a file.")
    ],
    to: Annotated[Format, typer.Option("--to", help="Format to write.")] = Format.hf,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The weights it was trained on, if they were moved.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the result again and compare every number.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Fold a LoRA adapter into the weights it was trained on.

    Other weights than those are refused. What has no adapter keeps every bit, memory stays small, and DST
    appears whole or not at all.
    """
    from glm3.application.merge_adapter import MergeAdapterRequest, merge_adapter
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.output import answer, note
    from glm3.entrypoints.cli.progress import progress

    services = container(settings_of(context))
    request = MergeAdapterRequest(
        adapter=adapter, target=target, format=to.value, base=base, verify=verify, overwrite=overwrite
    )
    with progress("merging", quiet=quiet) as report:
        result = merge_adapter(request, services.sources(), services.checkpoint_stores(), report)
    for text in result.notes:
        note(text)
    answer(f"{result.target}: {result.tensors} tensors in {result.seconds:.1f} s")

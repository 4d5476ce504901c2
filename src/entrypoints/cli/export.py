"""``glm3 export``: write a model as graphs for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from glm3.entrypoints.cli.command import Command, settings_of
from glm3.entrypoints.cli.options import Model
from glm3.entrypoints.cli.output import answer, answer_json, note

__all__ = ["app"]

MINDIR_EPILOG = """\
\b
Examples:
  glm3 export mindir -o tiny-mindir --kernels stock
  glm3 export mindir -m ./chatglm3-6b -o ./mindir --block-size 128 --num-blocks 512
  glm3 export mindir -m ./chatglm3-6b -o ./mindir --batch-size 1 --seq-length 2048 --dtype bfloat16
  glm3 export mindir -m ./chatglm3-6b -o ./mindir --quant int8-channel
"""

app = typer.Typer(
    help="Write a model as graphs for other runtimes.", rich_markup_mode=None, no_args_is_help=True
)


@app.callback()
def _group() -> None:
    """Write a model as graphs for other runtimes."""


@app.command("mindir", cls=Command, epilog=MINDIR_EPILOG)
def mindir(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="The folder to write.")],
    model: Model = "tiny",
    kernels: Annotated[
        str, typer.Option(metavar="SET", help="ascend, fused operators, or stock, plain ones.")
    ] = "ascend",
    dtype: Annotated[str, typer.Option(metavar="DTYPE", help="float16, bfloat16 or float32.")] = "float16",
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Sequences at once. [default: open]", show_default=False)
    ] = None,
    seq_length: Annotated[
        int | None,
        typer.Option(metavar="N", help="Tokens of a padded prompt. [default: open]", show_default=False),
    ] = None,
    num_blocks: Annotated[
        int | None,
        typer.Option(metavar="N", help="Blocks of the cache. [default: the model's]", show_default=False),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Tokens of a block. [default: the model's]", show_default=False),
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option(metavar="SCHEME", help="Round the blocks' matrices: int4, int8.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write prefill.mindir and decode.mindir, which share a layout of key and value blocks.

    Any machine can write them. Graphs of fused operators run on Ascend only. FOLDER appears whole or not at
    all.
    """
    from glm3.application.export_graphs import export_graphs
    from glm3.domain.ports.graph_exporter import GraphOptions
    from glm3.domain.tensors import DType
    from glm3.entrypoints.cli.loading import container

    if dtype not in ("float16", "bfloat16", "float32"):
        raise typer.BadParameter("float16, bfloat16 or float32", param_hint="--dtype")
    options = GraphOptions(
        kernels=kernels,
        dtype=DType(dtype),
        batch_size=batch_size,
        seq_length=seq_length,
        num_blocks=num_blocks,
        block_size=block_size,
        quant=quant,
    )
    parts = container(settings_of(context))
    note(f"compiling the graphs of {model} ...")
    result = export_graphs(
        model, output, options, parts.sources(), parts.checkpoint_stores(), parts.graph_exporter()
    )
    if as_json:
        answer_json({"seconds": result.seconds, "graphs": [_facts(graph) for graph in result.graphs]})
        return
    for graph in result.graphs:
        answer(str(graph.path))
        for name, shape in graph.inputs:
            answer(f"    {name:<14} int32 ({', '.join('?' if n is None else str(n) for n in shape)})")


def _facts(graph: Any) -> dict[str, Any]:
    return {
        "path": str(graph.path),
        "inputs": {name: list(shape) for name, shape in graph.inputs},
        "operators": dict(graph.operators),
    }

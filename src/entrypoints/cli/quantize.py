"""``glm3 quantize``: round a model's weights once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glm3.entrypoints.cli.command import settings_of
from glm3.entrypoints.cli.options import Model

__all__ = ["EPILOG", "quantize"]

EPILOG = """\
\b
Examples:
  glm3 quantize -m ./chatglm3-6b -o ./chatglm3-6b-int4     then: glm3 chat -m ./chatglm3-6b-int4
  glm3 quantize -m ./chatglm3-6b --quant int8 -o ./int8
  glm3 quantize -m ./chatglm3-6b --quant int4 --group-size 64 --head int8 -o ./mixed
  glm3 quantize -m ./chatglm3-6b --calibration text.txt -o ./chatglm3-6b-int4
  glm3 quantize --quant int4-g64-asym -o ./tiny-int4       the embedded model
"""


def quantize(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="The model folder to write.")
    ],
    model: Model = "tiny",
    quant: Annotated[
        str, typer.Option(metavar="SCHEME", help="int4, int8; also int4-g64, int4-g32-asym and so on.")
    ] = "int4",
    group_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Inputs that share a scale: 32, 64 or 128.", show_default=False),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(metavar="SCHEME", help="Another scheme for the embedding, or keep.", show_default=False),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEME", help="Another scheme for the output head, or keep.", show_default=False
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A text of the kind the model is for: rounding then makes up for its errors there.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FOLDER if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Round a model's weights to 4 or 8 bits and write a model folder that starts at once.

    The folder holds safetensors in the layout that the kernels read, mapped and not copied when it is loaded
    with -m; config.json and tokenizer.model lie beside them. Memory stays small whatever the size, and FOLDER
    appears whole or not at all.
    """
    from glm3.application.quantize_model import quantize_model
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.output import answer, answer_json, note
    from glm3.entrypoints.cli.progress import progress, size
    from glm3.entrypoints.quantization import quantization_request

    parts = container(settings_of(context))
    with progress("downloading", quiet=quiet) as report:
        request = quantization_request(
            parts,
            model,
            output,
            quant=quant,
            group_size=group_size,
            embedding=embedding,
            head=head,
            calibration=calibration,
            overwrite=overwrite,
            downloading=lambda file, done, total: report(done, total, file),
        )
    with progress("rounding", quiet=quiet) as report:
        result = quantize_model(request, parts.checkpoint_stores(), parts.quantizer(), report)
    if as_json:
        answer_json(
            {
                "target": str(result.target),
                "scheme": result.scheme,
                "bits_per_weight": result.bits_per_weight,
                "errors": dict(result.errors),
                "source_bytes": result.source_nbytes,
                "bytes": result.nbytes,
                "seconds": result.seconds,
            }
        )
        return
    answer(
        f"{result.target}: {result.scheme}, {result.bits_per_weight:.2f} bits a weight, "
        f"{size(result.source_nbytes)} to {size(result.nbytes)} in {result.seconds:.1f} s"
    )
    for kind, error in result.errors.items():
        answer(f"  {kind:<16} relative error {error:.4f}")
    if calibration is not None:
        note("calibration trades errors of the weights, which are these, for errors of the answers")

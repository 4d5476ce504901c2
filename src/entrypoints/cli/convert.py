"""``glm3 convert``: weights from one format to another."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from glm3.entrypoints.cli.command import settings_of
from glm3.entrypoints.cli.options import LoraAlpha, Precision

__all__ = ["EPILOG", "convert"]

EPILOG = """\
\b
Examples:
  glm3 convert ./chatglm3-6b glm3_6b.ckpt --to ckpt         Hugging Face to MindSpore
  glm3 convert ./chatglm3-6b ms/glm3_6b.ckpt --to ckpt --model-folder, then glm3 chat -m ms
  glm3 convert glm3_6b.ckpt ./converted --to hf             and back
  glm3 convert ./chatglm3-6b out.safetensors --to safetensors --dtype bfloat16 --verify
  glm3 convert glm3_6b.pth glm3_6b.ckpt --to ckpt --check-files .
  glm3 convert ./output/adapter lora.ckpt --to ckpt         an adapter to MindFormers
  glm3 convert lora.ckpt ./adapter --to hf --lora-alpha 32  and to PEFT
  glm3 convert ./chatglm3-6b glm3.gguf --to gguf --encoding q4_0
"""


class Format(StrEnum):
    """What can be written."""

    hf = "hf"
    ckpt = "ckpt"
    safetensors = "safetensors"
    bin = "bin"
    gguf = "gguf"


class Encoding(StrEnum):
    """How llama.cpp's files hold weights."""

    f16 = "f16"
    q8_0 = "q8_0"
    q4_0 = "q4_0"


def convert(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A folder or file of weights, or a name as tiny.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="What to write: a folder for hf, else a file.")
    ],
    to: Annotated[Format, typer.Option("--to", help="Format to write.")],
    dtype: Annotated[
        Precision | None, typer.Option(help="Convert floating tensors; without it every bit stays.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the result again and compare every number.")
    ] = False,
    check_files: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write pt_ckpt.txt and check_pt_ckpt.txt (name, shape, dtype of every tensor) there.",
        ),
    ] = None,
    model_folder: Annotated[
        bool,
        typer.Option(
            "--model-folder",
            help="With --to ckpt: also write NAME.yaml and tokenizer.model; the folder is then a model.",
        ),
    ] = False,
    lora_alpha: LoraAlpha = None,
    encoding: Annotated[
        Encoding | None,
        typer.Option(help="With --to gguf: how its matrices are stored; without it f16."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Convert weights: Hugging Face folders, MindSpore checkpoints, PyTorch files; adapters too.

    hf is a folder of safetensors shards with config.json; ckpt is MindSpore's format; safetensors is one
    file that MindSpore loads; bin is PyTorch's. Memory stays small whatever the size, and DST appears
    whole or not at all. A .bin or .pth source needs the extra glm3[torch]. gguf is llama.cpp's file, with the
    tokenizer in it, which is written and never read; it needs the extra glm3[gguf].
    """
    if to is Format.gguf:
        _require_unset(dtype=dtype, verify=verify, check_files=check_files, model_folder=model_folder)
        _require_unset(lora_alpha=lora_alpha)
        _export(context, source, target, encoding, overwrite=overwrite, quiet=quiet)
        return
    _require_unset(only_for="--to gguf", encoding=encoding)
    from glm3.application.convert import ConversionRequest
    from glm3.application.convert_adapter import convert_any
    from glm3.domain.tensors import DType
    from glm3.entrypoints.cli.loading import container, weights_named
    from glm3.entrypoints.cli.output import answer, note
    from glm3.entrypoints.cli.progress import progress, size
    from glm3.entrypoints.model_folder import model_folder_files

    source = weights_named(settings_of(context), source)
    request = ConversionRequest(
        source=source,
        target=target,
        format=to.value,
        dtype=None if dtype is None else DType(dtype.value),
        verify=verify,
        overwrite=overwrite,
        check_files=check_files,
        extra_files=model_folder_files(source, target, overwrite=overwrite) if model_folder else {},
    )
    with progress("converting", quiet=quiet) as report:
        parts = container(settings_of(context))
        result = convert_any(request, parts.sources(), parts.checkpoint_stores(), report, alpha=lora_alpha)
    changes = ", ".join(
        before.value if before is after else f"{before.value} to {after.value}"
        for before, after in result.dtypes
    )
    for text in result.notes:
        note(text)
    verified = ", verified" if result.verified else ""
    answer(
        f"{result.target}: {result.tensors} tensors, {size(result.nbytes)}, {changes}, "
        f"from {result.source_format} in {result.seconds:.1f} s{verified}"
    )


def _export(
    context: typer.Context,
    source: Path,
    target: Path,
    encoding: Encoding | None,
    *,
    overwrite: bool,
    quiet: bool,
) -> None:
    from glm3.application.export_model import ExportRequest, export_model
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.output import answer
    from glm3.entrypoints.cli.progress import progress, size

    parts = container(settings_of(context))
    request = ExportRequest(
        source=source,
        target=target,
        encoding=None if encoding is None else encoding.value,
        overwrite=overwrite,
    )
    with progress("writing", quiet=quiet) as report:
        result = export_model(
            request,
            parts.sources(),
            parts.checkpoint_stores(),
            parts.tokenizers(),
            parts.gguf_exporter(),
            report,
        )
    kinds = ", ".join(f"{count} {kind}" for kind, count in result.encodings.items())
    written = f"{result.tensors} tensors ({kinds}), {size(result.nbytes)}"
    answer(f"{result.target}: {written} in {result.seconds:.1f} s")


def _require_unset(*, only_for: str = "the other formats", **options: object) -> None:
    from glm3.domain.errors import UsageError

    for name, value in options.items():
        if value not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')} is for {only_for} only")

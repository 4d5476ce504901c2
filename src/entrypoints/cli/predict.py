"""``glm3 predict``: answer many prompts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glm3.entrypoints.cli.command import settings_of
from glm3.entrypoints.cli.options import (
    Adapter,
    Dtype,
    Kernels,
    KVCache,
    Lookup,
    Model,
    Precision,
    Quant,
    Threads,
    load_options,
)

if TYPE_CHECKING:
    from glm3.application.predict import Prediction

__all__ = ["EPILOG", "predict"]

EPILOG = """\
\b
Examples:
  glm3 predict "你好" "你是谁"
  glm3 predict --file prompts.txt -o result.txt --batch-size 4
  glm3 predict --file prompts.txt --json > answers.jsonl
"""
MAX_NEW_TOKENS = 256
"""The model card's ``max_decode_length``: an answer without an end should not fill the whole context."""


def predict(
    context: typer.Context,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Prompts; each is a conversation of its own."),
    ] = None,
    model: Model = "tiny",
    adapter: Adapter = None,
    file: Annotated[Path | None, typer.Option(help="Read prompts from this file, one a line.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write prompts and answers here, as run does.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Prompts answered together.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.")] = MAX_NEW_TOKENS,
    kernels: Kernels = "auto",
    dtype: Dtype = Precision.float32,
    threads: Threads = None,
    quant: Quant = None,
    kv_cache: KVCache = None,
    lookup: Lookup = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per prompt.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print answers only.")] = False,
) -> None:
    """Answer prompts one by one, always with the likeliest token.

    A prompt may be written out with role markers ([gMASK]sop<|user|> ...); it is then read as a
    conversation and not wrapped again.
    """
    from glm3.application.predict import PredictRequest, predict_together, require_prompts
    from glm3.application.predict import predict as answer_prompts
    from glm3.domain.errors import UsageError
    from glm3.domain.generation import GenerationConfig
    from glm3.entrypoints.cli.files import require_writable
    from glm3.entrypoints.cli.loading import container, open_model
    from glm3.entrypoints.cli.prompts import prompts_in_file, write_result

    if texts and file is None:
        prompts = list(texts)
    elif file is not None and not texts:
        prompts = prompts_in_file(file)
    else:
        raise UsageError(
            "prompts come from the command line or from a file", expected="TEXT... or --file FILE"
        )
    require_prompts(prompts)
    options = GenerationConfig(max_new_tokens=max_new_tokens, lookup=lookup)
    request = PredictRequest(prompts=prompts, options=options, batch_size=batch_size)
    loading = load_options(kernels, dtype, threads, quant, kv_cache)
    settings = settings_of(context)
    communicator = container(settings).communicator()
    if output is not None and communicator.rank == 0:
        require_writable(output)
    loaded = open_model(settings, model, loading, adapter=adapter, quiet=quiet)
    answers: Iterable[tuple[str, dict[str, Any]]]
    if communicator.world_size == 1:
        answers = map(_told, answer_prompts(request, loaded.model, loaded.tokenizer))
    else:  # ranks share the prompts out, and the first one tells the answers
        answers = predict_together(request, loaded.model, loaded.tokenizer, communicator, _told)
        if communicator.rank:
            return
    full_texts = _show(answers, len(prompts), as_json, quiet)
    if output is not None:
        write_result(output, full_texts)


def _told(result: Prediction) -> tuple[str, dict[str, Any]]:
    from glm3.entrypoints.cli.replies import reply_to_json

    return result.full_text, {"prompt": result.prompt, **reply_to_json(result.reply)}


def _show(answers: Iterable[tuple[str, dict[str, Any]]], count: int, as_json: bool, quiet: bool) -> list[str]:
    from glm3.entrypoints.cli.output import answer, answer_json_line, note

    full_texts = []
    for full_text, told in answers:
        if as_json:
            answer_json_line(told)
        else:
            if count > 1 and not quiet:
                note(f"> {told['prompt']}")
            answer(told["text"])
        full_texts.append(full_text)
    return full_texts

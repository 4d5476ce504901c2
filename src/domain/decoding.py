"""Generate: prompts in, ids out. Knows ids only; text, tokenizers and turns are its callers' matter."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

from glm3.domain.beam_search import beam_search
from glm3.domain.decoding_row import DecodingRow
from glm3.domain.errors import InvalidInputError
from glm3.domain.generation import Cancel, Generation, GenerationConfig, StopCheck, Token
from glm3.domain.ports.model import FloatArray, KVCache, LanguageModel
from glm3.domain.prompt_cache import PromptCache
from glm3.domain.prompt_lookup import PromptLookup, most_guesses

__all__ = ["PREFILL_CHUNK", "PromptCache", "generate", "stream"]

PREFILL_CHUNK = 512
"""Prompt tokens computed between two looks at ``cancel``."""


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    options: GenerationConfig,
    *,
    cancel: Cancel | None = None,
    stop_checks: Sequence[StopCheck] | None = None,
    prefill_chunk: int = PREFILL_CHUNK,
) -> list[Generation]:
    """Answer a batch of prompts of any lengths; a row that has ended is not computed any more.

    Args:
        model: scores the next tokens.
        prompts: one non-empty sequence of ids a row.
        options: limits, choice of tokens, stop ids.
        cancel: once true, rows that have not ended are returned as they are, with reason ``CANCELLED``.
        stop_checks: one a row, for stops that ids cannot tell (stop strings); not with beams.
        prefill_chunk: prompt tokens of all rows together in one call of the model.

    Returns:
        One result a prompt, in order. With ``num_beams`` above 1 it is the best beam.

    Raises:
        ContextLengthError: a prompt leaves no room for an answer.
        InvalidInputError: a prompt is empty or has an id the model does not know.
        NonFiniteLogitsError: the model gave NaN or infinite scores.
    """
    if stop_checks is not None and options.num_beams > 1:
        raise InvalidInputError("a stop check needs one beam", field="num_beams", found=options.num_beams)
    checks = [None] * len(prompts) if stop_checks is None else stop_checks
    context = model.config.seq_length
    rows = [
        DecodingRow(model, prompt, options, context, row=row, stop_check=check, name=f"prompts[{row}]")
        for row, (prompt, check) in enumerate(zip(prompts, checks, strict=True))
    ]
    if options.num_beams > 1:
        return [beam_search(model, row.prompt, options, row.limit, prefill_chunk, cancel) for row in rows]
    if len(rows) == 1:
        held = PromptCache.allocate(model, len(rows[0].prompt) + rows[0].limit)
        for _ in _stream(rows[0], held, prefill_chunk, cancel):
            pass
    elif rows:
        cache = model.new_cache(len(rows), max(len(row.prompt) + row.limit for row in rows))
        if _prefill(model, cache, rows, prefill_chunk, cancel):
            _decode(model, cache, rows, cancel)
    return [row.result() for row in rows]


def stream(
    model: LanguageModel,
    prompt: Sequence[int],
    options: GenerationConfig,
    *,
    cache: PromptCache | None = None,
    cancel: Cancel | None = None,
    stop_check: StopCheck | None = None,
    prefill_chunk: int = PREFILL_CHUNK,
) -> Generator[Token, None, None]:
    """Answer one prompt token by token; the tokens are those of :func:`generate`.

    The last token carries the finish reason. A stream that ``cancel`` ends just ends: no token of it
    carries one. Its consumer may also stop at any time; a ``cache`` then holds every id but the last
    token that was yielded, and the next call goes on from there.

    Args:
        model: scores the next tokens.
        prompt: all ids so far, those the cache holds included.
        options: limits, choice of tokens, stop ids; ``num_beams`` must be 1.
        cache: kept by the caller from turn to turn: only what follows the common beginning is computed.
        cancel: asked before each call of the model.
        stop_check: told each id before it is yielded; true makes it the last (stop strings).
        prefill_chunk: prompt tokens in one call of the model.

    Raises:
        ContextLengthError: the prompt leaves no room for an answer, in the model or in the cache.
        InvalidInputError: the prompt is empty or has an id the model does not know, the cache is another
            model's, or beams are asked for. These come at the call, not at the first token.
        NonFiniteLogitsError: the model gave NaN or infinite scores.
    """
    if options.num_beams > 1:
        raise InvalidInputError(
            "beams cannot be streamed", field="num_beams", expected=1, found=options.num_beams
        )
    if cache is not None and cache.model is not model:
        raise InvalidInputError("the cache was filled by another model", field="cache")
    context = model.config.seq_length if cache is None else min(model.config.seq_length, cache.capacity)
    row = DecodingRow(model, prompt, options, context, stop_check=stop_check)
    if cache is None:
        cache = PromptCache.allocate(model, len(row.prompt) + row.limit)
    return _stream(row, cache, prefill_chunk, cancel)


def _stream(
    row: DecodingRow, cache: PromptCache, chunk_size: int, cancel: Cancel | None
) -> Generator[Token, None, None]:
    scores = cache.prefill(row.prompt, chunk_size, cancel)
    if scores is None:
        return
    lookup = PromptLookup(row.prompt, most_guesses(cache.model) if row.looks_up else 0)
    drafts: list[int] = []
    passed: Generator[FloatArray, None, None] = (each for each in [scores])
    while True:
        with closing(passed):
            for draft, scores in zip([*drafts, None], passed, strict=True):
                token = row.take(scores)
                lookup.append(token.id)
                yield token
                if token.finish_reason is not None or _cancelled(cancel):
                    return
                if token.id != draft:
                    break
        drafts = lookup.propose(row.left - 1)
        passed = cache.verify([token.id, *drafts])


def _prefill(
    model: LanguageModel, cache: KVCache, rows: Sequence[DecodingRow], chunk_size: int, cancel: Cancel | None
) -> bool:
    """Compute all prompts, packed into calls of ``chunk_size`` tokens, and take each row's first token.

    Returns:
        False when it was cancelled.
    """
    waiting = list(range(len(rows)))
    while waiting:
        if _cancelled(cancel):
            return False
        batch: list[int] = []
        chunks: list[tuple[int, ...]] = []
        budget = chunk_size
        for index in waiting:
            if budget <= 0:
                break
            start = cache.length(index)
            batch.append(index)
            chunks.append(rows[index].prompt[start : start + budget])
            budget -= len(chunks[-1])
        for index, scores in zip(batch, model.extend(cache, batch, chunks), strict=True):
            if cache.length(index) == len(rows[index].prompt):
                rows[index].take(scores)
                waiting.remove(index)
    return True


def _decode(model: LanguageModel, cache: KVCache, rows: Sequence[DecodingRow], cancel: Cancel | None) -> None:
    running = [index for index, row in enumerate(rows) if row.finish_reason is None]
    while running and not _cancelled(cancel):
        scores = model.extend(cache, running, [[rows[index].last] for index in running])
        running = [
            index
            for index, row_scores in zip(running, scores, strict=True)
            if rows[index].take(row_scores).finish_reason is None
        ]


def _cancelled(cancel: Cancel | None) -> bool:
    return cancel is not None and cancel()

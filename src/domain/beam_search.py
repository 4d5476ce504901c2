"""Beam search: follow the most probable sequences side by side and return the best of those that ended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.domain.conversation import FinishReason
from glm3.domain.decoding_row import producible_ids
from glm3.domain.generation import Cancel, Generation, GenerationConfig
from glm3.domain.logits_processor import LogitsProcessor, log_probabilities
from glm3.domain.ports.model import FloatArray, IntArray, KVCache, LanguageModel
from glm3.domain.sampling import top_k_ids

__all__ = ["beam_search"]


@frozen(eq=False)
class _Beam:
    """A sequence and the row of the cache that holds it, its last id excepted.

    ``total`` is the sum of log-probabilities after penalties, which ranks; ``logprobs`` are the model's own.
    """

    row: int
    ids: tuple[int, ...]
    total: float
    logprobs: tuple[float, ...]
    process: LogitsProcessor

    def score(self, length_penalty: float) -> float:
        return _normalised(self.total, len(self.ids), length_penalty)


def beam_search(
    model: LanguageModel,
    prompt: Sequence[int],
    options: GenerationConfig,
    limit: int,
    prefill_chunk: int,
    cancel: Cancel | None = None,
) -> Generation:
    """Return the ended sequence with the best sum of log-probabilities over ``length ** length_penalty``.

    Each step keeps the best ``num_beams`` sequences, those that have ended included: an ended one gives
    its place up, so the beam narrows, one beam is greedy, and a beam wider than the tree is exhaustive.
    The length counts new ids, the stop id included. Equal scores go to the beam that ranked higher, then
    to the lower id. The search ends early when nothing that still goes on can overtake the best.

    Args:
        model: scores the next tokens.
        prompt: checked ids.
        options: ``num_beams``, ``length_penalty``, stop ids, penalties.
        limit: at most this many new ids.
        prefill_chunk: prompt tokens in one call of the model.
        cancel: once true, the best ended sequence is returned, or else the best one with ``CANCELLED``.

    Raises:
        NonFiniteLogitsError: the model gave NaN or infinite scores.
    """
    cache = model.new_cache(options.num_beams, len(prompt) + limit)
    scores = np.empty((0, 0), dtype=np.float32)
    for start in range(0, len(prompt), prefill_chunk):
        if cancel is not None and cancel():
            return Generation(prompt, len(prompt), FinishReason.CANCELLED, () if options.logprobs else None)
        scores = model.extend(cache, [0], [prompt[start : start + prefill_chunk]])
    beams = [_Beam(0, (), 0.0, (), LogitsProcessor(options, producible_ids(model, options), prompt))]
    places = options.num_beams
    best: _Beam | None = None
    for length in range(1, limit + 1):
        beams = _children(beams, scores, places, options)
        ended = [beam for beam in beams if length == limit or beam.ids[-1] in options.stop_ids]
        beams = [beam for beam in beams if beam not in ended]
        best = max(
            ended if best is None else [best, *ended],
            key=lambda beam: beam.score(options.length_penalty),
            default=None,
        )
        places -= len(ended)
        if not beams or _decided(best, beams, length, limit, options.length_penalty):
            break
        if cancel is not None and cancel():
            return _generation(prompt, best or beams[0], options)
        beams = _settle(cache, beams)
        scores = model.extend(cache, [beam.row for beam in beams], [beam.ids[-1:] for beam in beams])
    assert best is not None  # noqa: S101 - at the limit every beam has ended
    return _generation(prompt, best, options, FinishReason.LENGTH)


def _children(
    beams: Sequence[_Beam], scores: FloatArray, count: int, options: GenerationConfig
) -> list[_Beam]:
    """Return the ``count`` most probable continuations by one id, best first, on their parents' rows."""
    totals = np.stack(
        [beam.total + log_probabilities(beam.process(row)) for beam, row in zip(beams, scores, strict=True)]
    )
    children = []
    for index in _best(totals.ravel(), count):
        parent, token = divmod(int(index), totals.shape[1])
        beam = beams[parent]
        process = beam.process.fork()
        process.accept(token)
        logprobs = beam.logprobs
        if options.logprobs:
            logprobs += (float(log_probabilities(scores[parent][: totals.shape[1]])[token]),)
        children.append(_Beam(beam.row, (*beam.ids, token), float(totals[parent, token]), logprobs, process))
    return children


def _best(values: NDArray[np.float64], count: int) -> IntArray:
    """Return the indices of the ``count`` largest, best first, the lower one among equals; never ``-inf``."""
    indices = top_k_ids(values, count)
    indices = indices[np.isfinite(values[indices])]
    best: IntArray = indices[np.argsort(-values[indices], kind="stable")][:count]
    return best


def _settle(cache: KVCache, beams: Sequence[_Beam]) -> list[_Beam]:
    """Give every beam its own row: the first child inherits its parent's, others copy it to a free one."""
    inherited = {beam.row for beam in beams}
    free = iter([row for row in range(cache.rows) if row not in inherited])
    settled = []
    for beam in beams:
        row = beam.row
        if row in inherited:
            inherited.remove(row)
        else:
            row = next(free)
            cache.copy_row(beam.row, row)
        settled.append(_Beam(row, beam.ids, beam.total, beam.logprobs, beam.process))
    return settled


def _decided(best: _Beam | None, beams: Sequence[_Beam], length: int, limit: int, penalty: float) -> bool:
    """Tell whether no beam can overtake: totals only fall, and one end of the lengths divides best."""
    if best is None:
        return False
    total = beams[0].total
    reachable = max(_normalised(total, length + 1, penalty), _normalised(total, limit, penalty))
    return best.score(penalty) >= reachable


def _normalised(total: float, length: int, penalty: float) -> float:
    return float(total / length**penalty)


def _generation(
    prompt: Sequence[int],
    beam: _Beam,
    options: GenerationConfig,
    otherwise: FinishReason = FinishReason.CANCELLED,
) -> Generation:
    reason = FinishReason.STOP if beam.ids[-1] in options.stop_ids else otherwise
    return Generation((*prompt, *beam.ids), len(prompt), reason, beam.logprobs if options.logprobs else None)

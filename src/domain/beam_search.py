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


class _Pool:
    """The best sequences that have ended, best first, and whether they are enough.

    Args:
        options: ``num_beams`` is the size; ``length_penalty`` and ``early_stopping`` decide.
        limit: new ids at most.
    """

    def __init__(self, options: GenerationConfig, limit: int) -> None:
        self._options = options
        self._limit = limit
        self._ended: list[_Beam] = []

    @property
    def best(self) -> _Beam | None:
        return self._ended[0] if self._ended else None

    def add(self, ended: Sequence[_Beam]) -> None:
        """Take sequences in; equal scores keep their order, and the worst beyond the size leave."""
        ranked = sorted([*self._ended, *ended], key=self._score, reverse=True)
        self._ended = ranked[: self._options.num_beams]

    def suffices(self, best_running: _Beam) -> bool:
        """Tell whether the search is over, though ``best_running`` could go on."""
        options = self._options
        if len(self._ended) < options.num_beams:
            return False
        if options.early_stopping is True:
            return True
        longest = options.early_stopping == "never" and options.length_penalty > 0
        length = self._limit if longest else len(best_running.ids)
        reachable = _normalised(best_running.total, length, options.length_penalty)
        return reachable <= self._score(self._ended[-1])

    def _score(self, beam: _Beam) -> float:
        return _normalised(beam.total, len(beam.ids), self._options.length_penalty)


def beam_search(
    model: LanguageModel,
    prompt: Sequence[int],
    options: GenerationConfig,
    limit: int,
    prefill_chunk: int,
    cancel: Cancel | None = None,
) -> Generation:
    """Return the ended sequence with the best sum of log-probabilities over ``length ** length_penalty``.

    This is the search of Hugging Face transformers 5: each step ranks the continuations of all beams;
    those among the best ``num_beams`` that end go to a pool of the best ``num_beams``, and the best
    ``num_beams`` that do not end go on. ``early_stopping`` says when the pool is enough. The length
    counts new ids, the stop id included. Equal scores go to the beam that ranked higher, then to the
    lower id. Two things differ: where the vocabulary gives fewer beams than asked for, there are fewer
    (transformers fills up with copies that score -1e9), and ids beyond ``vocab_size`` have no probability.

    Args:
        model: scores the next tokens.
        prompt: checked ids.
        options: ``num_beams``, ``length_penalty``, ``early_stopping``, stop ids, penalties.
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
    pool = _Pool(options, limit)
    for length in range(1, limit + 1):
        beams, ended = _step(beams, scores, options, last=length == limit)
        pool.add(ended)
        if not beams or pool.suffices(beams[0]):
            break
        if cancel is not None and cancel():
            return _generation(prompt, pool.best or beams[0], options)
        beams = _settle(cache, beams)
        scores = model.extend(cache, [beam.row for beam in beams], [beam.ids[-1:] for beam in beams])
    best = pool.best
    assert best is not None  # noqa: S101 - at the limit every beam has ended
    return _generation(prompt, best, options, FinishReason.LENGTH)


def _step(
    beams: Sequence[_Beam], scores: FloatArray, options: GenerationConfig, *, last: bool
) -> tuple[list[_Beam], list[_Beam]]:
    """Return the continuations by one id that go on and those that end, best first, on their parents' rows.

    Args:
        beams: what goes on so far, best first.
        scores: what the model gave for each, ``(beams, padded_vocab_size)``.
        options: stop ids, ``num_beams``.
        last: every continuation ends, whatever its id.
    """
    totals = np.stack(
        [beam.total + beam.process.log_probabilities(row) for beam, row in zip(beams, scores, strict=True)]
    )
    running: list[_Beam] = []
    ended: list[_Beam] = []
    # A beam has one continuation by each stop id, so this many hold num_beams that go on.
    candidates = _best(totals.ravel(), (1 + len(options.stop_ids)) * options.num_beams)
    for rank, index in enumerate(candidates):
        parent, token = divmod(int(index), totals.shape[1])
        ends = last or token in options.stop_ids
        if ends and rank < options.num_beams:
            ended.append(_child(beams[parent], token, totals[parent, token], scores[parent], options))
        elif not ends and len(running) < options.num_beams:
            running.append(_child(beams[parent], token, totals[parent, token], scores[parent], options))
    return running, ended


def _child(parent: _Beam, token: int, total: float, scores: FloatArray, options: GenerationConfig) -> _Beam:
    process = parent.process.fork()
    process.accept(token)
    logprobs = parent.logprobs
    if options.logprobs:
        logprobs += (float(log_probabilities(scores[: process.vocab_size])[token]),)
    return _Beam(parent.row, (*parent.ids, token), float(total), logprobs, process)


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

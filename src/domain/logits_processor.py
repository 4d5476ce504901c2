"""Make a model's raw scores fit to choose from: the steps greedy, sampling and beam search share."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, TypeVar

import numpy as np

from glm3.domain.errors import InvalidInputError, NonFiniteLogitsError
from glm3.domain.generation import GenerationConfig
from glm3.domain.ports.model import FloatArray

__all__ = ["LogitsProcessor", "log_probabilities"]

_Scores = TypeVar("_Scores", bound=np.ndarray[Any, Any])


class LogitsProcessor:
    """Follow one row: cut to the vocabulary, penalise repetition, hold stop ids back.

    The repetition penalty is Hugging Face's: the score of every id of the prompt and the answer is divided
    by the penalty where it is positive, multiplied where it is negative. Stop ids score ``-inf`` until
    ``min_new_tokens`` tokens are accepted.

    Raises:
        InvalidInputError: ``min_new_tokens`` is set and every id is a stop id.
    """

    def __init__(self, options: GenerationConfig, vocab_size: int, prompt: Sequence[int]) -> None:
        self.vocab_size = vocab_size
        self._penalty = options.repetition_penalty
        self._seen = np.zeros(vocab_size if self._penalty != 1 else 0, dtype=np.bool_)
        for token in prompt:
            self._mark(token)
        self._stop_ids = sorted(token for token in options.stop_ids if token < vocab_size)
        if options.min_new_tokens and len(self._stop_ids) == vocab_size:
            raise InvalidInputError(
                "every id is a stop id", field="min_new_tokens", expected=0, found=options.min_new_tokens
            )
        self._position = len(prompt)
        self._first_free_stop = len(prompt) + options.min_new_tokens

    def __call__(self, scores: FloatArray) -> FloatArray:
        """Return the scores ``(vocab_size,)`` to choose the next token by; ``scores`` stays untouched.

        Raises:
            NonFiniteLogitsError: a score within the vocabulary is NaN or infinite.
        """
        return self._adjusted(self._checked(scores))

    def log_probabilities(self, scores: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return what beams add up ``(vocab_size,)``: the log-softmax first, then the penalties on it.

        This order is Hugging Face's for beams; penalised values do not sum to probability 1.

        Raises:
            NonFiniteLogitsError: a score within the vocabulary is NaN or infinite.
        """
        return self._adjusted(log_probabilities(self._checked(scores)))

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen."""
        self._mark(token)
        self._position += 1

    def fork(self) -> LogitsProcessor:
        """Return an independent processor in the same state (a beam that splits)."""
        other = copy(self)
        other._seen = self._seen.copy()
        return other

    def _mark(self, token: int) -> None:
        if token < self._seen.size:
            self._seen[token] = True

    def _checked(self, scores: FloatArray) -> FloatArray:
        scores = scores[: self.vocab_size]
        # NaN survives min and max, so two reductions see every fault (22 us at 65,024 scores).
        if not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
            self._refuse(scores)
        return scores

    def _adjusted(self, scores: _Scores) -> _Scores:
        hold_back = self._stop_ids if self._position < self._first_free_stop else []
        if not hold_back and not self._seen.size:
            return scores
        scores = scores.copy()
        if self._seen.size:
            ids = np.flatnonzero(self._seen)
            values = scores[ids]
            scores[ids] = np.where(values < 0, values * self._penalty, values / self._penalty)
        scores[hold_back] = -np.inf
        return scores

    def _refuse(self, scores: FloatArray) -> None:
        faults = np.flatnonzero(~np.isfinite(scores))
        raise NonFiniteLogitsError(
            f"the model's scores for position {self._position} are not finite",
            field=f"position {self._position}",
            expected="finite scores",
            found=f"{faults.size} of {scores.size}, first {scores[faults[0]]} at id {faults[0]}",
            hint="the weights are damaged, or float16 overflows: check the checkpoint, or load it as float32",
        )


def log_probabilities(scores: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the log-softmax of one row, in float64; ``-inf`` stays."""
    shifted = scores.astype(np.float64)
    shifted -= shifted.max()
    shifted -= np.log(np.exp(shifted).sum())
    return shifted

"""Use case: score a model on rows, by what it answers and by how likely it finds the right answer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from glm3.application.dealt_work import deal_out
from glm3.domain.decoding import generate
from glm3.domain.errors import BackendError, InvalidInputError
from glm3.domain.generation import GenerationConfig
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.model import LanguageModel, SupportsForward
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.training.encoding import IGNORE, EncodedRow, PairEncoder
from glm3.domain.training.rows import PairRow

__all__ = ["EvaluateRequest", "Evaluation", "ScoreTexts", "evaluate", "perplexity"]

ScoreTexts = Callable[[Sequence[str], Sequence[str]], Mapping[str, float]]
"""Compare predictions with references; an empty prediction counts as zero."""


@frozen(kw_only=True)
class EvaluateRequest:
    """Rows to score on, ``batch_size`` of them together.

    ``encoder`` lays out prompts and training rows; ``notes`` tell what is left out. Answers are the likeliest
    tokens, at most ``max_new_tokens`` of them.
    """

    rows: Sequence[PairRow]
    encoder: PairEncoder
    batch_size: int = 8
    max_new_tokens: int = 128
    with_generation: bool = True
    with_perplexity: bool = True
    notes: tuple[str, ...] = ()


@frozen(kw_only=True)
class Evaluation:
    """``scores`` by name; the texts are there if answers were generated. ``empty`` counts blank answers."""

    scores: Mapping[str, float]
    rows: int
    seconds: float
    predictions: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    empty: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        pairs = zip(self.predictions, self.references, strict=True)
        return {
            "scores": dict(self.scores),
            "rows": self.rows,
            "empty_predictions": self.empty,
            "seconds": round(self.seconds, 3),
            "predictions": [{"prediction": text, "reference": wanted} for text, wanted in pairs],
        }


def evaluate(
    request: EvaluateRequest,
    model: LanguageModel,
    tokenizer: Tokenizer,
    score_texts: ScoreTexts,
    progress: Callable[[int, int], None] | None = None,
    communicator: Communicator | None = None,
) -> Evaluation:
    """Score a model; ``progress`` is told how many of how many rows are done.

    With a ``communicator`` its ranks share the batches out; each returns the whole, which is the same for any
    number of them.

    Raises:
        InvalidInputError: there are no rows.
        ContextLengthError: a prompt leaves no room for an answer.
        BackendError: perplexity is asked of a model that scores last positions only.
    """
    if not request.rows:
        raise InvalidInputError("nothing to evaluate on", expected="at least one row")
    begun = time.monotonic()
    scores: dict[str, float] = {}
    predictions: tuple[str, ...] = ()
    references = tuple(row.target for row in request.rows)
    if request.with_perplexity:
        encoded = [request.encoder.encode(row) for row in request.rows]
        scores |= perplexity(encoded, model, request.batch_size, communicator)
    if request.with_generation:
        predictions = tuple(_answers(request, model, tokenizer, progress, communicator))
        scores |= score_texts(predictions, references)
    return Evaluation(
        scores=scores,
        rows=len(request.rows),
        seconds=time.monotonic() - begun,
        predictions=predictions,
        references=references if predictions else (),
        empty=sum(not text.strip() for text in predictions),
        notes=request.notes,
    )


def perplexity(
    rows: Sequence[EncodedRow],
    model: LanguageModel,
    batch_size: int,
    communicator: Communicator | None = None,
) -> dict[str, float]:
    """Return the mean cross-entropy over all supervised tokens, as ``loss``, and its exponential.

    Raises:
        BackendError: the model scores last positions only.
        InvalidInputError: no token of any row is supervised.
    """
    if not isinstance(model, SupportsForward):
        raise BackendError("this backend cannot score whole sequences, so it has no perplexity")
    forward = model.forward

    def measure(_: int, batch: Sequence[EncodedRow]) -> tuple[float, int]:
        length = max(row.length for row in batch)
        ids = np.stack([row.input_ids[:length] for row in batch]).astype(np.int64)
        targets = np.stack([row.targets[:length] for row in batch])
        learned = targets != IGNORE
        scores = forward(ids)[learned]
        highest = scores.max(axis=-1, keepdims=True)
        normalizers = np.log(np.exp(scores - highest).sum(axis=-1, dtype=np.float64)) + highest[:, 0]
        losses = normalizers - scores[np.arange(len(scores)), targets[learned]]
        return float(losses.sum()), len(scores)

    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    measured = deal_out(communicator, batches, measure)
    tokens = sum(count for _, count in measured)
    if not tokens:
        raise InvalidInputError("no token is supervised", expected="an answer in at least one row")
    loss = sum(total for total, _ in measured) / tokens
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


def _answers(
    request: EvaluateRequest,
    model: LanguageModel,
    tokenizer: Tokenizer,
    progress: Callable[[int, int], None] | None,
    communicator: Communicator | None,
) -> list[str]:
    options = GenerationConfig(max_new_tokens=request.max_new_tokens).for_vocabulary(tokenizer.special_tokens)
    prompts = [request.encoder.prompt(row.source) for row in request.rows]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    size = request.batch_size

    def answer(number: int, batch: Sequence[int]) -> list[str]:
        results = generate(model, [prompts[index] for index in batch], options)
        if progress is not None:  # of other ranks, that they keep pace
            progress(number * size + len(batch), len(order))
        return [tokenizer.decode(result.new_ids, skip_special_tokens=True).strip() for result in results]

    batches = [order[start : start + size] for start in range(0, len(order), size)]
    texts = [""] * len(prompts)
    for batch, answers in zip(batches, deal_out(communicator, batches, answer), strict=True):
        for index, text in zip(batch, answers, strict=True):
            texts[index] = text
    return texts

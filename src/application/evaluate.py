"""Use case: score a model on rows, by what it answers and by how likely it finds the right answer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from glm3.domain.decoding import generate
from glm3.domain.errors import BackendError, InvalidInputError
from glm3.domain.generation import GenerationConfig
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
) -> Evaluation:
    """Score a model; ``progress`` is told how many of how many rows are done.

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
        scores |= perplexity(encoded, model, request.batch_size)
    if request.with_generation:
        predictions = tuple(_answers(request, model, tokenizer, progress))
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


def perplexity(rows: Sequence[EncodedRow], model: LanguageModel, batch_size: int) -> dict[str, float]:
    """Return the mean cross-entropy over all supervised tokens, as ``loss``, and its exponential.

    Raises:
        BackendError: the model scores last positions only.
        InvalidInputError: no token of any row is supervised.
    """
    if not isinstance(model, SupportsForward):
        raise BackendError("this backend cannot score whole sequences, so it has no perplexity")
    total, tokens = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        length = max(row.length for row in batch)
        ids = np.stack([row.input_ids[:length] for row in batch]).astype(np.int64)
        targets = np.stack([row.targets[:length] for row in batch])
        learned = targets != IGNORE
        scores = model.forward(ids)[learned]
        highest = scores.max(axis=-1, keepdims=True)
        normalizers = np.log(np.exp(scores - highest).sum(axis=-1, dtype=np.float64)) + highest[:, 0]
        total += float((normalizers - scores[np.arange(len(scores)), targets[learned]]).sum())
        tokens += len(scores)
    if not tokens:
        raise InvalidInputError("no token is supervised", expected="an answer in at least one row")
    loss = total / tokens
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


def _answers(
    request: EvaluateRequest,
    model: LanguageModel,
    tokenizer: Tokenizer,
    progress: Callable[[int, int], None] | None,
) -> list[str]:
    options = GenerationConfig(max_new_tokens=request.max_new_tokens).for_vocabulary(tokenizer.special_tokens)
    prompts = [request.encoder.prompt(row.source) for row in request.rows]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    texts = [""] * len(prompts)
    for start in range(0, len(order), request.batch_size):
        batch = order[start : start + request.batch_size]
        for index, result in zip(batch, generate(model, [prompts[i] for i in batch], options), strict=True):
            texts[index] = tokenizer.decode(result.new_ids, skip_special_tokens=True).strip()
        if progress is not None:
            progress(start + len(batch), len(order))
    return texts

"""Scores of a model on rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.memory.scripted_model import ScriptedModel, reply_scores
from glm3.application.evaluate import EvaluateRequest, evaluate, perplexity
from glm3.domain.errors import BackendError, InvalidInputError
from glm3.domain.model_config import ModelConfig
from glm3.domain.special_tokens import EOS_ID
from glm3.domain.training.encoding import PairEncoder, PairLayout
from glm3.domain.training.rows import PairRow
from support.finetune import NETWORK, PAIRS

TOKENIZER = ByteTokenizer()
ENCODER = PairEncoder(TOKENIZER, 12, 19)
MODEL = NumpyModel.random(ModelConfig.from_mapping(NETWORK), seed=3, scale=0.3)


def test_perplexity_is_the_exponential_of_the_mean_over_all_tokens() -> None:
    rows = [ENCODER.encode(row) for row in PAIRS[:5]]
    losses: list[float] = []
    for row in rows:
        scores = MODEL.forward(row.input_ids[None, : row.length].astype(np.int64))[0].astype(np.float64)
        for position in np.flatnonzero(row.targets != -100):
            chances = np.exp(scores[position]) / np.exp(scores[position]).sum()
            losses.append(-math.log(chances[row.targets[position]]))
    for batch_size in (1, 2, 5):
        found = perplexity(rows, MODEL, batch_size)
        assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert found["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)


def test_rows_with_nothing_to_learn_have_no_perplexity() -> None:
    rows = [ENCODER.encode(PairRow("a", "b"))]
    rows[0].targets[:] = -100
    with pytest.raises(InvalidInputError, match="supervised"):
        perplexity(rows, MODEL, 1)


def test_answers_keep_the_order_of_the_rows_whatever_the_batches() -> None:
    seen: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def score(predictions: object, references: object) -> dict[str, float]:
        seen.append((predictions, references))
        return {"rouge-l": 1.0}

    for batch_size in (1, 4, 12):
        request = EvaluateRequest(
            rows=PAIRS, encoder=ENCODER, batch_size=batch_size, max_new_tokens=6, with_perplexity=False
        )
        result = evaluate(request, MODEL, TOKENIZER, score)
        assert result.scores == {"rouge-l": 1.0}
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][1] == tuple(row.target for row in PAIRS)
    assert any(text for text in seen[0][0])


def scripted(reply: str) -> ScriptedModel:
    special = TOKENIZER.special_tokens
    ids = [[*TOKENIZER.encode(reply), EOS_ID]]
    scores = reply_scores(ids, special.vocab_size, start_id=special.assistant, end_id=EOS_ID)
    return ScriptedModel(scores, special.vocab_size, seq_length=64)


def request(**changes: object) -> EvaluateRequest:
    encoder = PairEncoder(TOKENIZER, 12, 19, PairLayout.CHAT)
    values = {"rows": [PairRow("a", "b")], "encoder": encoder, "with_perplexity": False, "max_new_tokens": 9}
    return EvaluateRequest(**values | changes)


def test_the_answer_is_what_follows_the_prompt_without_its_end() -> None:
    result = evaluate(request(), scripted("\n it is b"), TOKENIZER, lambda *_: {})
    assert result.predictions == ("it is b",)
    assert result.to_json()["predictions"] == [{"prediction": "it is b", "reference": "b"}]
    assert result.empty == 0


def test_a_blank_answer_is_counted() -> None:
    assert evaluate(request(), scripted("\n "), TOKENIZER, lambda *_: {}).empty == 1


def test_a_model_without_a_forward_pass_has_no_perplexity() -> None:
    with pytest.raises(BackendError, match="perplexity"):
        evaluate(request(with_perplexity=True), scripted("x"), TOKENIZER, lambda *_: {})


def test_no_row_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="nothing to evaluate"):
        evaluate(request(rows=[]), scripted("x"), TOKENIZER, lambda *_: {})

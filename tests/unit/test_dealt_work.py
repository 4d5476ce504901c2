"""Several ranks answer what one would have answered alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.numpy_backend import NumpyBackend
from glm3.adapters.memory.thread_communicator import ThreadWorld
from glm3.application.dealt_work import deal_out
from glm3.application.evaluate import EvaluateRequest, evaluate
from glm3.application.predict import PredictRequest, predict_together
from glm3.domain.errors import UsageError
from glm3.domain.generation import GenerationConfig
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.training.encoding import PairEncoder
from support.finetune import NETWORK, PAIRS, SOURCE, TARGET

TOKENIZER = ByteTokenizer()
PROMPTS = ("color 1", "what", "a longer prompt", "b", "\u4f60\u597d")


def model():
    return NumpyBackend().load(ModelConfig.from_mapping(NETWORK), None, LoadOptions(seed=3))


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 9), size=st.integers(1, 4))
def test_every_rank_gets_all_results_and_each_task_is_done_once(count, size):
    def body(communicator):
        own = []

        def work(number, task):
            own.append(number)
            return {"of": task, "half": task / 3}

        return own, deal_out(communicator, [number * 10 for number in range(count)], work)

    ranks = ThreadWorld(size, timeout=30).run(body)
    assert sorted(number for own, _ in ranks for number in own) == list(range(count))
    assert max(len(own) for own, _ in ranks) - min(len(own) for own, _ in ranks) <= 1
    for _, found in ranks:
        assert found == [{"of": number * 10, "half": number * 10 / 3} for number in range(count)]


@pytest.mark.parametrize("size", [2, 3])
def test_an_evaluation_gives_the_same_numbers_and_texts(size):
    request = EvaluateRequest(
        rows=PAIRS[:7], encoder=PairEncoder(TOKENIZER, SOURCE, TARGET), batch_size=2, max_new_tokens=4
    )

    def body(communicator):
        told = []
        result = evaluate(
            request,
            model(),
            TOKENIZER,
            lambda predictions, references: {"pairs": len(list(zip(predictions, references, strict=True)))},
            lambda done, total: told.append((done, total)),
            communicator,
        )
        return result, told

    ((alone, _),) = ThreadWorld(1, timeout=30).run(body)
    assert np.isfinite(alone.scores["loss"])
    for found, told in ThreadWorld(size, timeout=30).run(body):
        assert found.scores == alone.scores
        assert found.predictions == alone.predictions
        assert 0 < len(told) < 4
        assert all(total == 7 for _, total in told)


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("sample", [False, True])
def test_predictions_are_the_same_and_in_order(size, sample):
    options = GenerationConfig(max_new_tokens=5, do_sample=sample, top_k=20, top_p=1.0, seed=5)
    request = PredictRequest(prompts=PROMPTS, options=options, batch_size=2)

    def body(communicator):
        return predict_together(
            request, model(), TOKENIZER, communicator, lambda found: [found.prompt, found.full_text]
        )

    (alone,) = ThreadWorld(1, timeout=30).run(body)
    assert [prompt for prompt, _ in alone] == list(PROMPTS)
    assert ThreadWorld(size, timeout=30).run(body) == [alone] * size


def test_what_one_rank_refuses_all_refuse():
    def body(communicator):
        with pytest.raises(UsageError, match="batch size"):
            predict_together(
                PredictRequest(prompts=PROMPTS, batch_size=0), model(), TOKENIZER, communicator, str
            )
        return True

    assert ThreadWorld(2, timeout=30).run(body) == [True, True]

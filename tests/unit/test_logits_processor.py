from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import InvalidInputError, NonFiniteLogitsError
from glm3.domain.generation import GenerationConfig
from glm3.domain.logits_processor import LogitsProcessor, log_probabilities
from glm3.domain.ports.model import FloatArray


def row(*scores: float) -> FloatArray:
    return np.array(scores, dtype=np.float32)


def test_the_penalty_divides_positive_and_multiplies_negative_scores_of_prompt_and_answer() -> None:
    process = LogitsProcessor(GenerationConfig(repetition_penalty=2.0), 5, prompt=[0, 1, 1])
    process.accept(3)
    assert process(row(4, -4, 4, 0, -4)).tolist() == [2, -8, 4, 0, -4]


def test_scores_of_the_model_are_never_changed() -> None:
    process = LogitsProcessor(
        GenerationConfig(repetition_penalty=2.0, min_new_tokens=1, stop_ids=[1]), 3, prompt=[0]
    )
    scores = row(1, 2, 3)
    scores.setflags(write=False)
    assert process(scores).tolist() == [0.5, -np.inf, 3]
    assert scores.tolist() == [1, 2, 3]


def test_stop_ids_are_held_back_until_enough_tokens_came() -> None:
    process = LogitsProcessor(GenerationConfig(min_new_tokens=2, stop_ids=[0, 2, 99]), 4, prompt=[3, 3, 3, 3])
    for expected in ([-np.inf, 1, -np.inf, 1], [-np.inf, 1, -np.inf, 1], [1, 1, 1, 1]):
        assert process(row(1, 1, 1, 1)).tolist() == expected
        process.accept(1)


def test_holding_back_every_id_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="every id is a stop id"):
        LogitsProcessor(GenerationConfig(min_new_tokens=1, stop_ids=[0, 1]), 2, prompt=[0])


def test_prompt_ids_beyond_the_vocabulary_are_no_matter_to_the_penalty() -> None:
    process = LogitsProcessor(GenerationConfig(repetition_penalty=2.0), 2, prompt=[0, 3])
    assert process(row(2, 2, 2, 2)).tolist() == [1, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_score_that_is_not_finite_raises_and_names_the_position(bad: float, place: int) -> None:
    process = LogitsProcessor(GenerationConfig(), 3, prompt=[0] * 7)
    process.accept(1)
    scores = row(1, 2, 3, 4)
    scores[place] = bad
    with pytest.raises(NonFiniteLogitsError, match=rf"position 8.*at id {place}"):
        process(scores)


def test_scores_that_can_never_be_chosen_may_be_anything() -> None:
    assert LogitsProcessor(GenerationConfig(), 2, [0])(row(1, 2, np.nan, np.inf)).tolist() == [1, 2]


def test_a_fork_goes_its_own_way() -> None:
    options = GenerationConfig(repetition_penalty=2.0, min_new_tokens=1, stop_ids=[0])
    process = LogitsProcessor(options, 3, prompt=[2])
    fork = process.fork()
    fork.accept(1)
    assert process(row(2, 2, 2)).tolist() == [-np.inf, 2, 1]
    assert fork(row(2, 2, 2)).tolist() == [2, 1, 1]


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20))
def test_log_probabilities_are_those_of_a_distribution(scores: list[float]) -> None:
    logs = log_probabilities(row(*scores))
    assert np.exp(logs).sum() == pytest.approx(1, abs=1e-9)
    assert np.allclose(logs - logs[0], np.array(scores) - scores[0], atol=1e-5)

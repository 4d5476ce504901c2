"""The engine on whole batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.scripted_model import ScriptedModel, hashed_scores, ngram_scores
from glm3.domain.conversation import FinishReason, Usage
from glm3.domain.decoding import generate
from glm3.domain.errors import ContextLengthError, InvalidInputError, NonFiniteLogitsError
from glm3.domain.generation import GenerationConfig

VOCAB = 12
PROMPTS = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9), min_size=1, max_size=5)


def counting_model(seq_length: int = 64) -> ScriptedModel:
    """Says the id after the last one, round and round."""
    table = {(i,): [float(j == (i + 1) % VOCAB) for j in range(VOCAB)] for i in range(VOCAB)}
    return ScriptedModel(ngram_scores(table, VOCAB), VOCAB, seq_length=seq_length)


def random_model() -> ScriptedModel:
    return ScriptedModel(hashed_scores(VOCAB, scale=1.5), VOCAB, seq_length=64)


def calls_until(count: int) -> Sequence[bool]:
    """The answers of a cancel that is asked ``count`` times in vain, then once yes, then no again."""
    return [False] * count + [True] + [False] * 50


def test_greedy_follows_the_best_scores_and_keeps_the_stop_id() -> None:
    result = generate(counting_model(), [[3, 4]], GenerationConfig(stop_ids=[7, 9], max_new_tokens=20))[0]
    assert result.ids == (3, 4, 5, 6, 7)
    assert result.finish_reason is FinishReason.STOP
    assert result.usage == Usage(2, 3)
    assert result.logprobs is None


@pytest.mark.parametrize(
    ("limits", "length", "reason"),
    [
        ({"max_new_tokens": 2}, 2, FinishReason.LENGTH),
        ({"max_length": 5}, 2, FinishReason.LENGTH),
        ({"max_length": 4, "max_new_tokens": 3}, 3, FinishReason.STOP),
        ({}, 3, FinishReason.STOP),
        ({"max_new_tokens": 3}, 3, FinishReason.STOP),
    ],
)
def test_limits(limits: dict[str, int], length: int, reason: FinishReason) -> None:
    """The prompt of three is followed by 5, 6, 7; a stop id at the limit counts as a stop."""
    result = generate(counting_model(), [[2, 3, 4]], GenerationConfig(stop_ids=[7], **limits))[0]
    assert (len(result.new_ids), result.finish_reason) == (length, reason)


def test_without_any_limit_the_context_is_filled_exactly() -> None:
    model = counting_model(seq_length=30)
    result = generate(model, [[1] * 10], GenerationConfig(max_new_tokens=500))[0]
    assert len(result.ids) == 30
    assert result.finish_reason is FinishReason.LENGTH


@given(PROMPTS, st.booleans(), st.integers(1, 20))
def test_a_batch_gives_what_its_rows_give_alone(prompts: list[list[int]], penalise: bool, chunk: int) -> None:
    options = GenerationConfig(
        stop_ids=[0, 5], max_new_tokens=12, repetition_penalty=1.3 if penalise else 1.0, logprobs=True
    )
    together = generate(random_model(), prompts, options, prefill_chunk=chunk)
    alone = [generate(random_model(), [prompt], options)[0] for prompt in prompts]
    assert together == alone


@given(PROMPTS, PROMPTS, st.integers(0, 1000))
def test_a_sampled_row_does_not_depend_on_its_neighbours(
    some: list[list[int]], others: list[list[int]], seed: int
) -> None:
    options = GenerationConfig(do_sample=True, seed=seed, max_new_tokens=6, stop_ids=[0])
    a = generate(random_model(), [some[0], [1, 2, 3], *some], options)
    b = generate(random_model(), [others[-1], [1, 2, 3]], options)
    assert a[1] == b[1]


def test_a_row_that_has_ended_is_not_computed_any_more() -> None:
    model = counting_model()
    results = generate(model, [[5], [1], [3, 4, 6]], GenerationConfig(stop_ids=[7], max_new_tokens=20))
    assert [result.new_ids for result in results] == [(6, 7), (2, 3, 4, 5, 6, 7), (7,)]
    assert model.calls == [((5,), (1,), (3, 4, 6)), ((6,), (2,)), ((3,),), ((4,),), ((5,),), ((6,),)]


@given(PROMPTS, st.integers(1, 12))
def test_prefill_computes_every_prompt_token_once_in_calls_of_the_chunk_size(
    prompts: list[list[int]], chunk: int
) -> None:
    model = random_model()
    generate(model, prompts, GenerationConfig(max_new_tokens=1), prefill_chunk=chunk)
    total = sum(map(len, prompts))
    assert model.computed_tokens == total
    assert [sum(map(len, call)) for call in model.calls[:-1]] == [chunk] * (len(model.calls) - 1)


def test_the_repetition_penalty_counts_prompt_and_answer() -> None:
    """Scores 3, 2, 1.9: id 0 is penalised to 1.5 by the prompt, then id 1 to 1 by the answer."""
    model = ScriptedModel(lambda ids: [3.0, 2.0, 1.9], 3)
    options = GenerationConfig(max_new_tokens=3, repetition_penalty=2.0)
    assert generate(model, [[0]], options)[0].new_ids == (1, 2, 0)


def test_min_new_tokens_holds_the_stop_id_back() -> None:
    model = ScriptedModel(lambda ids: [9.0, 1.0], 2)
    options = GenerationConfig(stop_ids=[0], min_new_tokens=3)
    assert generate(model, [[1]], options)[0].new_ids == (1, 1, 1, 0)


@given(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=5), st.booleans(), st.integers(1, 30))
def test_no_id_beyond_the_vocabulary_is_produced(prompt: list[int], do_sample: bool, vocab_size: int) -> None:
    options = GenerationConfig(do_sample=do_sample, vocab_size=vocab_size, temperature=5.0, max_new_tokens=20)
    assert max(generate(random_model(), [prompt], options)[0].new_ids) < min(vocab_size, VOCAB)


def test_a_stop_check_ends_its_row_alone() -> None:
    heard: list[list[int]] = [[], []]

    def check(row: int, end: int, token: int) -> bool:
        heard[row].append(token)
        return token == end

    results = generate(
        counting_model(),
        [[1], [1]],
        GenerationConfig(stop_ids=[6], max_new_tokens=20),
        stop_checks=[lambda token: check(0, 3, token), lambda token: check(1, 99, token)],
    )
    assert [result.new_ids for result in results] == [(2, 3), (2, 3, 4, 5, 6)]
    assert [result.finish_reason for result in results] == [FinishReason.STOP] * 2
    assert heard == [[2, 3], [2, 3, 4, 5]]


def test_logprobs_go_with_the_tokens() -> None:
    model = ScriptedModel(lambda ids: [0.0, 1.0], 2)
    result = generate(model, [[0]], GenerationConfig(max_new_tokens=2, logprobs=True))[0]
    assert result.logprobs == pytest.approx([-np.log1p(np.exp(-1))] * 2)


@pytest.mark.parametrize(("asked", "lengths"), [(0, [0, 0]), (1, [0, 0]), (2, [1, 1]), (4, [3, 2])])
def test_cancel_returns_what_there_is(asked: int, lengths: list[int]) -> None:
    """Two chunks of prefill are asked for first; the second row has stopped by itself before the last."""
    answers = iter(calls_until(asked))
    results = generate(
        counting_model(),
        [[1, 2, 3, 3], [5]],
        GenerationConfig(stop_ids=[7], max_new_tokens=20),
        cancel=lambda: next(answers),
        prefill_chunk=3,
    )
    assert [len(result.new_ids) for result in results] == lengths
    assert results[0].finish_reason is FinishReason.CANCELLED
    stopped = FinishReason.STOP if lengths[1] == 2 else FinishReason.CANCELLED
    assert results[1].finish_reason is stopped


def test_no_prompts_give_no_rows() -> None:
    assert generate(counting_model(), [], GenerationConfig()) == []


@pytest.mark.parametrize(
    ("prompts", "field"),
    [([[1], []], "prompts[1]"), ([[1], [2, 12]], "prompts[1][1]"), ([[-1]], "prompts[0][0]")],
)
def test_a_bad_prompt_is_named_and_nothing_is_computed(prompts: list[list[int]], field: str) -> None:
    model = counting_model()
    with pytest.raises(InvalidInputError) as caught:
        generate(model, prompts, GenerationConfig())
    assert caught.value.field == field
    assert not model.calls


@pytest.mark.parametrize(
    ("limits", "limit", "hint"),
    [
        ({}, "16", "oldest turns"),
        ({"max_new_tokens": 1}, "16", "oldest turns"),
        ({"max_length": 7}, "7", "max_new_tokens"),
    ],
)
def test_a_prompt_without_room_for_an_answer_names_both_lengths(
    limits: dict[str, int], limit: str, hint: str
) -> None:
    length = 16 if limit == "16" else 9
    with pytest.raises(ContextLengthError) as caught:
        generate(counting_model(seq_length=16), [[1], [1] * length], GenerationConfig(**limits))
    assert caught.value.field == "prompts[1]"
    assert f"{length} prompt tokens" in str(caught.value)
    assert f"fewer than {limit} prompt tokens" in str(caught.value)
    assert hint in str(caught.value.hint)


def test_scores_that_are_not_finite_end_the_run() -> None:
    model = ScriptedModel(lambda ids: [1.0, float("nan") if len(ids) == 4 else 0.0], 2)
    with pytest.raises(NonFiniteLogitsError, match="position 4"):
        generate(model, [[0, 0]], GenerationConfig(max_new_tokens=9))


def test_beams_and_a_stop_check_are_refused_together() -> None:
    with pytest.raises(InvalidInputError, match="one beam"):
        generate(counting_model(), [[1]], GenerationConfig(num_beams=2), stop_checks=[lambda token: False])

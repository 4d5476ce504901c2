from __future__ import annotations

from collections.abc import Iterator
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.scripted_model import Scores, ScriptedModel, hashed_scores, ngram_scores
from glm3.domain.beam_search import beam_search
from glm3.domain.conversation import FinishReason
from glm3.domain.decoding import generate
from glm3.domain.generation import Generation, GenerationConfig

PROMPTS = st.lists(st.integers(0, 3), min_size=1, max_size=4)
PENALTIES = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])
STOPS = st.sets(st.integers(0, 3), max_size=2)


def log_softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    total = top + log(sum(exp(score - top) for score in scores))
    return [score - total for score in scores]


def all_endings(
    scores: Scores, ids: tuple[int, ...], total: float, options: GenerationConfig, left: int
) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Every sequence that ends by a stop id or by the limit, with its sum of log-probabilities."""
    for token, logprob in enumerate(log_softmax(list(scores(ids)))):
        if token in options.stop_ids or left == 1:
            yield total + logprob, (*ids, token)
        else:
            yield from all_endings(scores, (*ids, token), total + logprob, options, left - 1)


def plain_beam_search(scores: Scores, prompt: list[int], options: GenerationConfig, limit: int) -> float:
    """The same search with neither cache nor early end; returns the best score."""
    beams, places, best = [(0.0, tuple(prompt))], options.num_beams, float("-inf")
    for length in range(1, limit + 1):
        children = sorted(
            (
                (total + logprob, (*ids, token))
                for total, ids in beams
                for token, logprob in enumerate(log_softmax(list(scores(ids))))
            ),
            reverse=True,
        )[:places]
        beams = []
        for total, ids in children:
            if ids[-1] in options.stop_ids or length == limit:
                best = max(best, total / length**options.length_penalty)
                places -= 1
            else:
                beams.append((total, ids))
    return best


def score_of(scores: Scores, result: Generation, penalty: float) -> float:
    total = 0.0
    for position in range(result.prompt_length, len(result.ids)):
        total += log_softmax(list(scores(result.ids[:position])))[result.ids[position]]
    return total / len(result.new_ids) ** penalty


@given(st.integers(0, 10_000), PROMPTS, STOPS, PENALTIES, st.integers(1, 3))
def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all_sequences(
    seed: int, prompt: list[int], stops: set[int], penalty: float, limit: int
) -> None:
    scores = hashed_scores(4, seed=seed, scale=1.0)
    options = GenerationConfig(
        num_beams=4**limit, stop_ids=stops, length_penalty=penalty, max_new_tokens=limit
    )
    result = generate(ScriptedModel(scores, 4), [prompt], options)[0]
    best, ids = max(
        (total / (len(ids) - len(prompt)) ** penalty, ids)
        for total, ids in all_endings(scores, tuple(prompt), 0.0, options, limit)
    )
    assert score_of(scores, result, penalty) == pytest.approx(best, abs=1e-5)
    assert result.ids == ids
    assert result.finish_reason is (FinishReason.STOP if ids[-1] in stops else FinishReason.LENGTH)


@given(
    st.integers(0, 10_000),
    st.sampled_from([1.0, 4.0]),
    PROMPTS,
    STOPS,
    PENALTIES,
    st.integers(2, 6),
    st.integers(1, 8),
)
def test_a_narrow_beam_over_the_cache_finds_what_the_plain_search_finds(
    seed: int, scale: float, prompt: list[int], stops: set[int], penalty: float, num_beams: int, limit: int
) -> None:
    """The scores depend on every id, so a row copied wrongly, or an early end too soon, shows."""
    scores = hashed_scores(4, seed=seed, scale=scale)
    options = GenerationConfig(
        num_beams=num_beams, stop_ids=stops, length_penalty=penalty, max_new_tokens=limit
    )
    model = ScriptedModel(scores, 4)
    result = generate(model, [prompt], options, prefill_chunk=2)[0]
    expected = plain_beam_search(scores, prompt, options, limit)
    assert score_of(scores, result, penalty) == pytest.approx(expected, abs=1e-5)
    assert generate(model, [prompt], options)[0] == result


@given(st.integers(0, 10_000), PROMPTS, STOPS, st.sampled_from([1.0, 1.4]), st.integers(0, 2))
def test_one_beam_is_greedy(
    seed: int, prompt: list[int], stops: set[int], repetition_penalty: float, min_new_tokens: int
) -> None:
    model = ScriptedModel(hashed_scores(4, seed=seed), 4)
    options = GenerationConfig(
        stop_ids=stops,
        repetition_penalty=repetition_penalty,
        min_new_tokens=min_new_tokens,
        max_new_tokens=7,
        logprobs=True,
    )
    assert beam_search(model, prompt, options, 7, 512) == generate(model, [prompt], options)[0]


def test_two_beams_see_past_a_first_token_that_only_looks_best() -> None:
    """0 is likelier than 1 at first, but 1 leads to a sure 2."""
    table = {(3,): [log(0.6), log(0.4), -9, -9], (0,): [0.0, 0, 0, 0], (1,): [-9.0, -9, 9, -9]}
    model = ScriptedModel(ngram_scores(table, 4), 4)
    greedy = generate(model, [[3]], GenerationConfig(max_new_tokens=2))[0]
    beam = generate(model, [[3]], GenerationConfig(max_new_tokens=2, num_beams=2))[0]
    assert greedy.new_ids == (0, 0)
    assert beam.new_ids == (1, 2)


def test_the_length_penalty_decides_between_short_and_long() -> None:
    """Stopping at once (0.6) against four sure tokens behind a less likely one (0.4)."""
    table = {(2,): [log(0.6), log(0.4), -99], (1,): [-9.0, 9, -9]}
    model = ScriptedModel(ngram_scores(table, 3), 3)

    def new_ids(penalty: float) -> tuple[int, ...]:
        options = GenerationConfig(num_beams=2, stop_ids=[0], max_new_tokens=5, length_penalty=penalty)
        return generate(model, [[2]], options)[0].new_ids

    assert new_ids(0.0) == (0,)
    assert new_ids(1.0) == (1, 1, 1, 1, 1)


def test_the_search_ends_when_nothing_can_overtake() -> None:
    """Without a length penalty a sure stop beats everything, so no second step is computed."""
    model = ScriptedModel(lambda ids: [9.0, 0, 0], 3)
    options = GenerationConfig(num_beams=3, stop_ids=[0], length_penalty=0.0, max_new_tokens=20)
    assert generate(model, [[1]], options)[0].new_ids == (0,)
    assert len(model.calls) == 1


def test_a_positive_length_penalty_does_not_end_the_search_too_soon() -> None:
    """A stop at once scores -0.36; one step on it is -1.2 / 2, and only at the limit -1.2 / 5 overtakes."""
    table = {(2,): [log(0.7), log(0.3), -99], (1,): [0.0, 99, 0]}
    options = GenerationConfig(num_beams=2, stop_ids=[0], max_new_tokens=5)
    assert generate(ScriptedModel(ngram_scores(table, 3), 3), [[2]], options)[0].new_ids == (1,) * 5


def test_a_negative_length_penalty_does_not_end_the_search_too_soon() -> None:
    """A stop at once scores -1; going on costs 0.46, and 2 x -0.46 is better, though 8 x -0.46 is not."""
    table = {(2,): [-1.0, log(1 - exp(-1)), -99], (1,): [99.0, 0, 0]}
    options = GenerationConfig(num_beams=2, stop_ids=[0], max_new_tokens=8, length_penalty=-1.0)
    assert generate(ScriptedModel(ngram_scores(table, 3), 3), [[2]], options)[0].new_ids == (1, 0)


def test_ids_beyond_the_vocabulary_and_held_back_stop_ids_are_no_continuations() -> None:
    model = ScriptedModel(lambda ids: [1.0, 5, 0, 90], 4)
    options = GenerationConfig(
        num_beams=8, vocab_size=3, stop_ids=[1], min_new_tokens=2, max_new_tokens=2, length_penalty=0.0
    )
    assert generate(model, [[0]], options)[0].new_ids == (0, 0)
    assert model.calls == [((0,),), ((0,), (2,))]


def test_every_prompt_of_a_batch_is_searched() -> None:
    scores = hashed_scores(4)
    options = GenerationConfig(num_beams=3, max_new_tokens=4)
    prompts = [[0], [1, 2], [3, 3, 3]]
    together = generate(ScriptedModel(scores, 4), prompts, options)
    assert together == [generate(ScriptedModel(scores, 4), [prompt], options)[0] for prompt in prompts]


@pytest.mark.parametrize(
    ("asked", "new_ids", "reason"),
    [
        (0, (), FinishReason.CANCELLED),
        (1, (1,), FinishReason.CANCELLED),
        (2, (1, 0), FinishReason.STOP),
    ],
)
def test_cancel_returns_the_best_so_far(asked: int, new_ids: tuple[int, ...], reason: FinishReason) -> None:
    table = {(2,): [-9.0, 2, 1], (1,): [1.0, 0.5, 0]}
    answers = iter([False] * asked + [True])
    result = generate(
        ScriptedModel(ngram_scores(table, 3), 3),
        [[2]],
        GenerationConfig(num_beams=2, stop_ids=[0], max_new_tokens=9, length_penalty=2.0),
        cancel=lambda: next(answers),
    )[0]
    assert (result.new_ids, result.finish_reason) == (new_ids, reason)


def test_a_cancelled_search_never_returns_a_stop_id_that_was_held_back() -> None:
    answers = iter([False, True])
    result = generate(
        ScriptedModel(lambda ids: [9.0, 0, 0], 3),
        [[2]],
        GenerationConfig(num_beams=3, stop_ids=[0], min_new_tokens=4, max_new_tokens=9),
        cancel=lambda: next(answers),
    )[0]
    assert (result.new_ids, result.finish_reason) == ((1,), FinishReason.CANCELLED)

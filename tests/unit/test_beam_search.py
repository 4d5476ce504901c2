from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from math import exp, log
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.scripted_model import Scores, ScriptedModel, hashed_scores, ngram_scores
from glm3.domain.beam_search import beam_search
from glm3.domain.conversation import FinishReason
from glm3.domain.decoding import generate
from glm3.domain.errors import NonFiniteLogitsError
from glm3.domain.generation import Generation, GenerationConfig
from support.beam_golden import beam_cases

GOLDEN = Path(__file__).parents[1] / "golden"
PROMPTS = st.lists(st.integers(0, 3), min_size=1, max_size=4)
PENALTIES = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])
EARLY = st.sampled_from([True, False, "never"])
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
    """The same search with neither cache nor rows; returns the best score."""
    size, penalty = options.num_beams, options.length_penalty
    beams, pool = [(0.0, tuple(prompt))], []
    for length in range(1, limit + 1):
        children = sorted(
            (
                (total + logprob, (*ids, token))
                for total, ids in beams
                for token, logprob in enumerate(log_softmax(list(scores(ids))))
            ),
            reverse=True,
        )
        ends = [length == limit or ids[-1] in options.stop_ids for _, ids in children]
        found = [child for child, end in zip(children, ends, strict=True) if end and child in children[:size]]
        pool = sorted(pool + [total / length**penalty for total, _ in found], reverse=True)[:size]
        beams = [child for child, end in zip(children, ends, strict=True) if not end][:size]
        if not beams or (len(pool) == size and options.early_stopping is True):
            break
        final = limit if options.early_stopping == "never" and penalty > 0 else length
        if len(pool) == size and beams[0][0] / final**penalty <= pool[-1]:
            break
    return pool[0]


def score_of(scores: Scores, result: Generation, penalty: float, repetition_penalty: float = 1.0) -> float:
    total = 0.0
    for position in range(result.prompt_length, len(result.ids)):
        seen, token = result.ids[:position], result.ids[position]
        total += log_softmax(list(scores(seen)))[token] * (repetition_penalty if token in seen else 1)
    return total / len(result.new_ids) ** penalty


CASES = list(beam_cases())
ANSWERS = json.loads((GOLDEN / "beam_search.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", range(len({case.seed for case in CASES})))
def test_beams_are_those_of_transformers(number: int) -> None:
    """Over widths, penalties and early stopping; support/beam_golden.py made the answers."""
    for case in [case for case in CASES if case.seed == number]:
        model = ScriptedModel(case.scores, case.vocab_size)
        result = generate(model, [case.prompt], case.options)[0]
        ids, score = ANSWERS[case.key]
        assert list(result.new_ids) == ids, case
        found = score_of(case.scores, result, case.length_penalty, case.repetition_penalty)
        assert found == pytest.approx(score, abs=2e-5), case


def test_the_answers_of_transformers_tell_the_options_apart() -> None:
    """No option could be ignored, and no value taken for another, without another answer somewhere."""
    assert {case.key for case in CASES} == set(ANSWERS)
    for name in ("num_beams", "length_penalty", "early_stopping"):
        values = {getattr(case, name) for case in CASES}
        for one, other in combinations(values, 2):
            pairs = [(case, evolve(case, **{name: other})) for case in CASES if getattr(case, name) == one]
            answers = [(ANSWERS[a.key], ANSWERS[b.key]) for a, b in pairs if b.key in ANSWERS]
            assert any(a[0] != b[0] for a, b in answers), (name, one, other)


@given(st.integers(0, 10_000), PROMPTS, STOPS, PENALTIES, EARLY, st.integers(1, 3))
def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all_sequences(
    seed: int, prompt: list[int], stops: set[int], penalty: float, early: bool | str, limit: int
) -> None:
    scores = hashed_scores(4, seed=seed, scale=1.0)
    options = GenerationConfig(
        num_beams=4**limit,
        stop_ids=stops,
        length_penalty=penalty,
        early_stopping=early,
        max_new_tokens=limit,
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
    EARLY,
    st.integers(2, 6),
    st.integers(1, 8),
)
def test_a_narrow_beam_over_the_cache_finds_what_the_plain_search_finds(
    seed: int,
    scale: float,
    prompt: list[int],
    stops: set[int],
    penalty: float,
    early: bool | str,
    num_beams: int,
    limit: int,
) -> None:
    """The scores depend on every id, so a row copied wrongly, or an early end too soon, shows."""
    scores = hashed_scores(4, seed=seed, scale=scale)
    options = GenerationConfig(
        num_beams=num_beams,
        stop_ids=stops,
        length_penalty=penalty,
        early_stopping=early,
        max_new_tokens=limit,
    )
    model = ScriptedModel(scores, 4)
    result = generate(model, [prompt], options, prefill_chunk=2)[0]
    expected = plain_beam_search(scores, prompt, options, limit)
    assert score_of(scores, result, penalty) == pytest.approx(expected, abs=1e-5)
    assert generate(model, [prompt], options)[0] == result


@given(st.integers(0, 10_000), PROMPTS, STOPS, st.integers(0, 2))
def test_one_beam_that_stops_early_is_greedy(
    seed: int, prompt: list[int], stops: set[int], min_new_tokens: int
) -> None:
    model = ScriptedModel(hashed_scores(4, seed=seed), 4)
    options = GenerationConfig(
        stop_ids=stops,
        min_new_tokens=min_new_tokens,
        early_stopping=True,
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


@pytest.mark.parametrize(("early_stopping", "steps"), [(True, 2), (False, 3), ("never", 6)])
def test_early_stopping_says_when_two_ended_beams_are_enough(early_stopping: bool | str, steps: int) -> None:
    """Two have ended after two steps: (0) at -0.69 and (1, 0) at -2.69 / 2.

    (1, 1) at -0.84 / 2 could overtake, and (1, 1, 0) does. Then -0.69 is the worst: (1, 1, 1) at -4.84 / 3
    does not beat it, but over 20 tokens it would, as would -8.84 and -12.84, though not -16.84.
    """
    table = {
        (2,): [log(0.5), log(0.5), -20],
        (1,): [-2.0, log(1 - exp(-2)), -30],
        (1, 1): [log(1 - exp(-4)), -4.0, -30],
    }
    model = ScriptedModel(ngram_scores(table, 3), 3)
    options = GenerationConfig(num_beams=2, stop_ids=[0], max_new_tokens=20, early_stopping=early_stopping)
    generate(model, [[2]], options)
    assert len(model.calls) == steps


def test_a_negative_length_penalty_does_not_end_the_search_too_soon() -> None:
    """A stop at once scores -1; going on costs 0.46, and 2 x -0.46 is better, though 8 x -0.46 is not."""
    table = {(2,): [-1.0, log(1 - exp(-1)), -99], (1,): [99.0, 0, 0]}
    options = GenerationConfig(num_beams=2, stop_ids=[0], max_new_tokens=8, length_penalty=-1.0)
    assert generate(ScriptedModel(ngram_scores(table, 3), 3), [[2]], options)[0].new_ids == (1, 0)


def test_never_stopping_early_counts_the_next_step_where_short_answers_are_favoured() -> None:
    """Two have ended at -1.61 and 2 x -3.22; (1, 1) at -0.27 makes 3 x -0.27, though 50 x -0.27 is worse."""
    table = {
        (2,): [log(0.2), log(0.8), -30],
        (1,): [-3.0, log(1 - exp(-3)), -30],
        (1, 1): [0.0, -30, -30],
    }
    options = GenerationConfig(
        num_beams=2, stop_ids=[0], max_new_tokens=50, length_penalty=-1.0, early_stopping="never"
    )
    result = generate(ScriptedModel(ngram_scores(table, 3), 3), [[2]], options)[0]
    assert result.new_ids == (1, 1, 0)


def test_ids_beyond_the_vocabulary_and_held_back_stop_ids_are_no_continuations() -> None:
    model = ScriptedModel(lambda ids: [1.0, 5, 0, 90], 4)
    options = GenerationConfig(
        num_beams=8, vocab_size=3, stop_ids=[1], min_new_tokens=2, max_new_tokens=2, length_penalty=0.0
    )
    assert generate(model, [[0]], options)[0].new_ids == (0, 0)
    assert model.calls == [((0,),), ((0,), (2,))]


def test_scores_that_are_not_finite_are_refused() -> None:
    model = ScriptedModel(lambda ids: [1.0, float("nan"), 0] if len(ids) > 1 else [1.0, 0, 0], 3)
    with pytest.raises(NonFiniteLogitsError, match="position 2"):
        generate(model, [[0]], GenerationConfig(num_beams=2, max_new_tokens=3))


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

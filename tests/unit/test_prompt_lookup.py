"""Guessing by look-up: it changes how much is computed at a time, and nothing else."""

from __future__ import annotations

from itertools import cycle, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.memory.scripted_model import (
    Scores,
    ScriptedCache,
    ScriptedModel,
    hashed_scores,
    reply_scores,
)
from glm3.domain.decoding import generate, stream
from glm3.domain.generation import GenerationConfig
from glm3.domain.prompt_cache import PromptCache
from glm3.domain.prompt_lookup import PromptLookup
from support.scores import repetitive

VOCAB = 9
TEXTS = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=24)
MOST = st.integers(1, 9)


def reading(text: list[int], vocab: int = VOCAB) -> Scores:
    """Return scores that make a greedy caller read out a text behind a first id 0."""
    return reply_scores([text], vocab, start_id=0, end_id=1)


@settings(deadline=None)
@given(
    TEXTS,
    st.integers(0, 99),
    st.integers(1, 3),
    MOST,
    st.fixed_dictionaries(
        {
            "do_sample": st.booleans(),
            "repetition_penalty": st.sampled_from([1.0, 1.3]),
            "min_new_tokens": st.integers(0, 9),
            "stop_ids": st.sampled_from([(), (3,), (1, 5)]),
            "max_new_tokens": st.integers(9, 40),
            "temperature": st.sampled_from([0.3, 1.0]),
        }
    ),
)
def test_tokens_are_those_of_one_at_a_time(prompt, seed, order, most, choices) -> None:
    options = GenerationConfig(seed=7, logprobs=True, **choices)
    plain = ScriptedModel(repetitive(VOCAB, seed, order), VOCAB, seq_length=80)
    expected = generate(plain, [prompt], options)[0]
    looked_up = ScriptedModel(repetitive(VOCAB, seed, order), VOCAB, seq_length=80, verifiable=most)
    assert generate(looked_up, [prompt], options)[0] == expected
    tokens = list(stream(looked_up, prompt, options))
    assert tuple(token.id for token in tokens) == expected.new_ids
    assert tokens[-1].finish_reason is expected.finish_reason
    assert max(len(row) for call in looked_up.calls[1:] for row in call) <= max(most, len(prompt))


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=4), MOST)
def test_whatever_was_guessed_the_cache_holds_what_was_read(turns, most) -> None:
    """Each turn keeps some of the ids so far and adds others; its consumer may leave in the middle."""
    model = ScriptedModel(repetitive(VOCAB, 1, 2), VOCAB, seq_length=256, verifiable=most)
    options = GenerationConfig(max_new_tokens=30)
    cache = PromptCache.allocate(model)
    so_far: list[int] = []
    for added, kept, consumed in turns:
        prompt = [*so_far[:kept], *added]
        iterator = stream(model, prompt, options, cache=cache)
        tokens = [token.id for token, _ in zip(iterator, range(consumed), strict=False)]
        iterator.close()
        fresh = stream(ScriptedModel(repetitive(VOCAB, 1, 2), VOCAB, seq_length=256), prompt, options)
        assert tokens == [token.id for token in islice(fresh, consumed)]
        fresh.close()
        inner = cache._cache
        assert isinstance(inner, ScriptedCache)
        assert tuple(inner.ids[0]) == cache.ids
        if tokens:
            so_far = [*prompt, *tokens]
            assert cache.ids[: len(so_far) - 1] == tuple(so_far[:-1])


def test_a_text_that_stands_in_the_prompt_is_copied_many_tokens_at_a_time() -> None:
    text = [2 + 7 * i % 61 for i in range(60)]
    options = GenerationConfig(max_new_tokens=60)
    model = ScriptedModel(reading(text, 63), 63, verifiable=8)
    assert list(generate(model, [[*text, 0]], options)[0].new_ids) == text
    assert len(model.calls) <= 12


def test_text_that_does_not_repeat_is_left_alone_soon() -> None:
    """Wrong guesses become rare: their tokens stay a small part of all that is computed."""
    model = ScriptedModel(hashed_scores(VOCAB), VOCAB, seq_length=2048, verifiable=8)
    produced = len(generate(model, [[2, 3]], GenerationConfig(max_new_tokens=1500))[0].new_ids)
    guessed = model.computed_tokens - produced - 1
    assert 0 < guessed < produced / 20


def test_look_up_can_be_left_out() -> None:
    model = ScriptedModel(reading([2] * 30), VOCAB, verifiable=8)
    generate(model, [[0]], GenerationConfig(max_new_tokens=30, lookup=False))
    assert [len(row) for call in model.calls for row in call] == [1] * 30


def test_a_loop_is_continued_beyond_what_was_seen_of_it() -> None:
    lookup = PromptLookup([5, 6, 7, 5, 6], 8)
    for token in (7, 5):  # three right guesses, then longer ones
        lookup.append(token)
    assert lookup.propose(3) == [6, 7, 5]
    for token in (6, 7, 5):
        lookup.append(token)
    assert lookup.propose(7) == list(islice(cycle([6, 7, 5]), 7))


@pytest.mark.parametrize("room", [0, 1, 2])
def test_what_is_proposed_anew_counts_instead_of_what_was_proposed_before(room: int) -> None:
    lookup, once = (PromptLookup([5, 6, 7] * 4, 8) for _ in range(2))
    assert lookup.propose(8) == [5, 6, 7]
    assert lookup.propose(room) == once.propose(room) == [5, 6, 7][:room]
    for token in (5, 6, 7):
        lookup.append(token)
        once.append(token)
    assert lookup.propose(8) == once.propose(8)
    assert len(once.propose(8)) == (7 if room else 3)


@pytest.mark.parametrize(("most", "room"), [(0, 5), (5, 0), (5, -1)])
def test_nothing_is_proposed_without_room(most: int, room: int) -> None:
    assert PromptLookup([1, 2, 3] * 4, most).propose(room) == []


@given(TEXTS, TEXTS, st.integers(1, 9), st.integers(1, 9))
def test_proposals_are_ids_that_were_seen_and_fit(prompt, answer, most, room) -> None:
    lookup = PromptLookup(prompt, most)
    for token in answer:
        proposed = lookup.propose(room)
        assert len(proposed) <= min(most, room)
        assert set(proposed) <= {*prompt, *answer}
        lookup.append(token)


def test_what_the_last_ids_were_followed_by_latest_is_proposed() -> None:
    assert PromptLookup([1, 2, 3, 1, 2, 4, 1, 2], 1).propose(9) == [4]


def test_more_equal_ids_are_better_evidence() -> None:
    assert PromptLookup([5, 6, 1, 2, 7, 1, 2, 8, 5, 6, 1, 2], 1).propose(9) == [7]

"""Look-up in the engine: several tokens of an answer in one pass, and the same answers to everybody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.memory.scripted_model import (
    Scores,
    ScriptedCache,
    ScriptedModel,
    hashed_scores,
    reply_scores,
)
from glm3.application.engine import Engine
from glm3.domain.engine.guesses import shared_out
from glm3.domain.engine.job import Job
from glm3.domain.engine.kv_rows import KVRows
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.engine.request import Cancelled, EngineRequest, Event, Produced
from glm3.domain.errors import BackendError, NonFiniteLogitsError
from glm3.domain.generation import GenerationConfig
from support.engine import Desk
from support.scores import repetitive

VOCAB = 9
WIDE = 63
TEXT = [2 + 7 * i % 61 for i in range(60)]  # no id twice


def model(scores: Scores | None = None, verifiable: int = 8) -> ScriptedModel:
    return ScriptedModel(scores or repetitive(VOCAB), VOCAB, seq_length=96, verifiable=verifiable)


def reader(text: list[int] = TEXT) -> ScriptedModel:
    """Return a model that reads ``text`` out behind a first id 0."""
    return ScriptedModel(reply_scores([text], WIDE, start_id=0, end_id=1), WIDE, verifiable=8)


def limits(**changes: Any) -> EngineLimits:
    return EngineLimits(**{"slots": 3, "slot_tokens": 96, "prefill_chunk": 7, **changes})


def ask(prompt: list[int], tokens: int = 30, **options: Any) -> EngineRequest:
    return EngineRequest(prompt=prompt, options=GenerationConfig(max_new_tokens=tokens, **options))


def at_two_threes() -> Callable[[int], bool]:
    """Return a check that ends an answer at its second id 3: it must be told each id once, in order."""
    seen: list[int] = []

    def check(token: int) -> bool:
        seen.append(token)
        return seen.count(3) == 2

    return check


def alone(asked: EngineRequest, scores: Scores | None = None) -> list[Event]:
    """Return what the same request is told when it runs alone, one token a pass."""
    if asked.stop_check is not None:
        asked = evolve(asked, stop_check=at_two_threes())
    desk = Desk(model(scores), limits(lookup=False))
    _, told = desk.submit(asked)
    desk.finish()
    assert all(len(ids) == 1 for step in desk.steps if not step.prompt_tokens for ids in step.tokens)
    return produced(told.events)


def produced(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, Produced)]


def passes(desk: Desk) -> int:
    """Return how many passes computed no prompt."""
    return sum(not step.prompt_tokens for step in desk.steps)


ids = st.integers(0, VOCAB - 1)
texts = st.lists(ids, min_size=1, max_size=24)
OPTIONS = st.fixed_dictionaries(
    {
        "max_new_tokens": st.integers(6, 36),
        "min_new_tokens": st.integers(0, 6),
        "do_sample": st.booleans(),
        "temperature": st.sampled_from([0.3, 1.0]),
        "top_p": st.sampled_from([0.8, 1.0]),
        "repetition_penalty": st.sampled_from([1.0, 1.3]),
        "stop_ids": st.sampled_from([(), (3,), (1, 5)]),
        "seed": st.integers(0, 3),
        "lookup": st.sampled_from([True, True, True, False]),
    }
)
REQUESTS = st.builds(
    lambda prompt, options, choice, openings, checked: EngineRequest(
        prompt=prompt,
        options=GenerationConfig(logprobs=True, **options),
        choice=choice,
        top_logprobs=2,
        openings=openings,
        stop_check=at_two_threes() if checked else None,
    ),
    texts,
    OPTIONS,
    st.integers(0, 2),
    st.lists(st.lists(ids.filter(lambda token: token not in (1, 3, 5)), min_size=1, max_size=3), max_size=2),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(0, 5), st.integers(1, 3), st.integers(1, 10))
def test_answers_are_those_without_look_up_whoever_joins_leaves_or_is_cancelled(
    data, seed, order, verifiable
):
    """Ids, log-probabilities and ends; in pools that are large or tight, with beginnings in common."""
    scores = repetitive(VOCAB, seed, order)
    desk = Desk(
        model(scores, verifiable),
        limits(
            slots=data.draw(st.integers(1, 4)),
            prefill_chunk=data.draw(st.integers(1, 20)),
            pool_tokens=data.draw(st.one_of(st.none(), st.integers(96, 200))),
            kept=data.draw(st.integers(0, 3)),
        ),
    )
    asked, cancelled, seen = [], set(), []
    for _ in range(data.draw(st.integers(1, 16))):
        move = data.draw(st.sampled_from(["ask", "ask again", "cancel", "steps", "steps"]))
        if move == "ask" or (move == "ask again" and seen):
            item = data.draw(REQUESTS)
            if move == "ask again":
                start = data.draw(st.sampled_from(seen))
                item = evolve(item, prompt=[*start, *item.prompt][:50])
            expected = alone(item, scores)
            asked.append((expected, *desk.submit(item)))
            seen.append([*item.prompt, *(event.id for event in expected)])
        elif move == "cancel" and asked:
            job = data.draw(st.sampled_from([job for _, job, _ in asked]))
            job.cancelled = True
            cancelled.add(job)
        elif move == "steps":
            for _ in range(data.draw(st.integers(1, 6))):
                desk.step()
    desk.finish()
    for expected, job, told in asked:
        found = produced(told.events)
        if isinstance(told.events[-1], Cancelled):
            assert job in cancelled
            assert found == expected[: len(found)]
        else:
            assert found == expected
    assert desk.scheduler.stats().running == 0


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_text_that_stands_in_the_prompt_comes_several_tokens_a_pass(streams):
    """All passes are full once guesses have proved right: eight tokens, whoever they are for."""
    desk = Desk(reader(), limits(slots=4, slot_tokens=128, prefill_chunk=512))
    told = [desk.submit(ask([*TEXT, 0], tokens=60, seed=i))[1] for i in range(streams)]
    desk.finish()
    assert all(answer.ids == TEXT for answer in told)
    assert passes(desk) <= streams * 60 / 8 + 4
    assert max(sum(map(len, step.tokens)) for step in desk.steps[-5:]) <= 8


def test_one_answer_that_repeats_has_the_guesses_of_those_that_do_not():
    """Three answers a pass leave room for five guesses."""
    text = [2, 3, 4, 5] * 15
    replies = reply_scores([text], WIDE, start_id=0, end_id=1)
    scrambled = hashed_scores(WIDE, seed=3)
    two = ScriptedModel(
        lambda so_far: replies(so_far) if 0 in so_far else [0.0, *scrambled(so_far)[1:]], WIDE, verifiable=8
    )
    desk = Desk(two, limits(slots=3, slot_tokens=128, prefill_chunk=64))
    for start in (7, 8):
        desk.submit(ask([start], tokens=80, vocab_size=WIDE))
    _, told = desk.submit(ask([0], tokens=60))
    while not told.ended:
        desk.step()
    assert told.ids == text
    assert max(len(tokens) for step in desk.steps for tokens in step.tokens) == 6
    assert len(desk.steps) <= 60 / 6 + 12


def test_no_pass_has_guesses_beside_a_prompt_or_beyond_what_can_be_verified():
    """The desk checks every step; here both happen while answers repeat."""
    desk = Desk(reader(), limits(slots=12, slot_tokens=128, prefill_chunk=4))
    desk.submit(ask([*TEXT, 0], tokens=60))
    while passes(desk) < 3:
        desk.step()
    assert desk.steps[-1].guessed
    desk.submit(ask([5] * 20, tokens=2))
    desk.step()
    assert desk.steps[-1].prompt_tokens
    assert not desk.steps[-1].guessed
    desk.finish()
    desk = Desk(reader([2, 3] * 20), limits(slots=12, slot_tokens=128, prefill_chunk=64))
    for number in range(9):
        desk.submit(ask([0], tokens=16 if number < 2 else 40))
    desk.finish()
    assert max(len(step.jobs) for step in desk.steps) == 9
    assert max(len(step.jobs) for step in desk.steps if step.guessed) == 7


@pytest.mark.parametrize("where", ["engine", "request", "model"])
def test_look_up_can_be_left_out(where):
    text = [2, 3] * 15
    reading = ScriptedModel(
        reply_scores([text], WIDE, start_id=0, end_id=1), WIDE, verifiable=1 if where == "model" else 8
    )
    desk = Desk(reading, limits(lookup=where != "engine"))
    _, told = desk.submit(ask([0], lookup=where != "request"))
    desk.finish()
    assert told.ids == text
    assert all(len(ids) == 1 for step in desk.steps for ids in step.tokens)


def test_guesses_take_no_block_that_an_ended_conversation_keeps():
    """An answer that ends with the last free block might have gone on."""
    kept = [*range(2, 2 + 40), 1]
    text = ([2, 3] * 24)[:47]
    desk = Desk(reader(text), limits(slots=1, pool_tokens=96, prefill_chunk=96))
    desk.submit(ask(kept, tokens=1))
    desk.finish()
    assert desk.cache.free_blocks * desk.cache.block_size == len(text) + 1
    _, told = desk.submit(ask([0], tokens=80, stop_ids=[1]))
    desk.finish()
    assert told.ids == [*text, 1]
    assert passes(desk) < len(text) / 2
    assert desk.cache.free_blocks == 0
    _, again = desk.submit(ask(kept, tokens=1))
    desk.finish()
    assert again.cached == len(kept) - 1


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=4),
    st.lists(st.integers(0, 9), min_size=4, max_size=4),
    st.integers(0, 6),
)
def test_guesses_have_the_room_that_is_free_and_no_more(rows, wanted, spare):
    """Rows may share the blocks of a beginning, the last one included."""
    cache = ScriptedCache(5, 240, 240)
    kv = KVRows(cache)
    claimed: list[int] = []
    for number, (length, shares) in enumerate(rows):
        source = next(iter(claimed), None)
        row = number
        if shares and source is not None:
            cache.copy_row(source, row)
        else:
            cache.write([row], [[number] * length])
        claimed.append(row)
    counts = wanted[: len(claimed)]
    plain = cache.growth(claimed, [1] * len(claimed))
    while cache.free_blocks > plain + spare and cache.length(4) + 8 <= cache.capacity:
        cache.write([4], [[0] * 8])
    room = kv.room_for_guesses(claimed, counts)
    assert all(0 <= fits <= count for fits, count in zip(room, counts, strict=True))
    assert cache.growth(claimed, [1 + fits for fits in room]) <= max(plain, cache.free_blocks)
    if room != counts:
        assert cache.growth(claimed, [1 + count for count in counts]) > cache.free_blocks
        for row, fits, count in zip(claimed, room, counts, strict=True):
            assert fits == count or cache.growth([row], [2 + fits]) > cache.growth([row], [1])


@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.integers(0, 7))
def test_room_for_guesses_is_shared_equally_among_those_that_want_it(wanted, total):
    shares = shared_out(wanted, total)
    assert sum(shares) == min(total, sum(wanted))
    assert all(share <= want for share, want in zip(shares, wanted, strict=True))
    for share, want in zip(shares, wanted, strict=True):
        assert share == want or share + 1 >= max(shares)


class Failing(ScriptedModel):
    """Fails in its first pass with guesses, after it has changed its cache."""

    failed = False

    def verify(self, cache, rows, tokens):
        scores = super().verify(cache, rows, tokens)
        if not self.failed:
            self.failed = True
            raise BackendError("a kernel failed")
        return scores


def test_a_pass_with_guesses_that_fails_costs_its_own_requests_only():
    scores = reply_scores([[2, 3] * 15], WIDE, start_id=0, end_id=1)
    desk = Desk(Failing(scores, WIDE, verifiable=8), limits(slots=2))
    told = [desk.submit(ask([0]))[1] for _ in range(3)]
    desk.finish()
    assert [isinstance(answer.error, BackendError) for answer in told] == [True, True, False]
    assert told[2].ids == [2, 3] * 15
    assert told[2].cached == 0


def test_scores_that_are_not_finite_in_a_pass_with_guesses_end_their_answer_where_they_would_have():
    text = [2, 3] * 15
    reading = reply_scores([text], WIDE, start_id=0, end_id=1)

    def scores(so_far: tuple[int, ...]) -> Any:
        return [np.nan] * WIDE if so_far[0] == 0 and len(so_far) == 20 else reading(so_far)

    told = {}
    for lookup in (True, False):
        desk = Desk(ScriptedModel(scores, WIDE, verifiable=8), limits(lookup=lookup))
        told[lookup] = [desk.submit(ask(prompt))[1] for prompt in ([0], [5, 0])]
        desk.finish()
        assert any(step.guessed for step in desk.steps) == lookup
    for one, other in zip(told[True], told[False], strict=True):
        assert one.ids == other.ids
        assert type(one.error) is type(other.error)
    assert isinstance(told[True][0].error, NonFiniteLogitsError)
    assert told[True][1].ids == text


@pytest.mark.parametrize("last", range(8, 24))
def test_a_listener_that_fails_in_the_middle_of_a_pass_is_told_no_more_of_it(last):
    text = [2, 3] * 15
    desk = Desk(reader(text), limits())
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if len(produced(events)) == last:
            raise RuntimeError("gone")

    desk.scheduler.enqueue(Job(desk.model, desk.tokens, ask([0]), listen, 0.0))
    desk.finish()
    assert any(step.guessed for step in desk.steps)
    assert len(produced(events)) == last
    assert events[-1] == Cancelled()
    _, again = desk.submit(ask([0, *text[:last], 2], tokens=1))
    desk.finish()
    assert again.cached == last  # what was told last, and what was guessed behind it, is not held


@pytest.mark.parametrize("lookup", [True, False])
def test_a_stream_brings_all_tokens_of_a_pass_in_order(lookup):
    reading = reader()
    engine = Engine(reading, limits(slot_tokens=128, prefill_chunk=512, lookup=lookup))
    thread = engine.start()
    try:
        found = [token.id for token in engine.stream(ask([*TEXT, 0], tokens=60))]
    finally:
        engine.stop()
        thread.join(timeout=10)
    assert found == TEXT
    assert len(reading.calls) <= 14 if lookup else len(reading.calls) >= 60

"""Continuous batching: what is answered, in whose company, and at whose cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.memory.scripted_model import ScriptedModel, hashed_scores, ngram_scores
from glm3.domain.conversation import FinishReason
from glm3.domain.decoding import generate
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.engine.request import EngineRequest, Produced
from glm3.domain.errors import (
    BackendError,
    ContextLengthError,
    InvalidInputError,
    NonFiniteLogitsError,
    OverloadedError,
    TimeLimitError,
)
from glm3.domain.generation import GenerationConfig
from support.engine import Desk

VOCAB = 24


def model(seq_length: int = 96) -> ScriptedModel:
    return ScriptedModel(hashed_scores(VOCAB, scale=1.5), VOCAB, seq_length=seq_length)


def limits(**changes: Any) -> EngineLimits:
    return EngineLimits(**{"slots": 3, "slot_tokens": 96, "prefill_chunk": 7, **changes})


def request(prompt: list[int], tokens: int = 8, **changes: Any) -> EngineRequest:
    options = GenerationConfig(max_new_tokens=tokens, **changes.pop("options", {}))
    return EngineRequest(prompt=prompt, options=options, **changes)


def alone(asked: EngineRequest) -> list[int]:
    """Return what the plain decoder answers to the same request."""
    return list(generate(model(), [asked.prompt], asked.options)[0].new_ids)


prompts = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30)


@settings(max_examples=60)
@given(st.data())
def test_a_greedy_answer_is_that_of_a_lone_request_whoever_joins_leaves_or_is_cancelled(data):
    desk = Desk(
        model(),
        limits(
            slots=data.draw(st.integers(1, 4)),
            prefill_chunk=data.draw(st.integers(1, 20)),
            pool_tokens=data.draw(st.one_of(st.none(), st.integers(96, 250))),
            kept=data.draw(st.integers(0, 5)),
        ),
    )
    asked, cancelled, seen = [], set(), []
    for _ in range(data.draw(st.integers(1, 25))):
        move = data.draw(st.sampled_from(["ask", "ask again", "cancel", "step", "step"]))
        if move == "ask" or (move == "ask again" and seen):
            start = data.draw(st.sampled_from(seen)) if move == "ask again" else []
            prompt = [*start, *data.draw(prompts)][:60]
            item = request(
                prompt,
                data.draw(st.integers(1, 12)),
                client=data.draw(st.sampled_from("abc")),
                options={"stop_ids": [1, 2]},
            )
            asked.append((item, *desk.submit(item)))
            seen.append([*prompt, *alone(item)[:-1]])
        elif move == "cancel" and asked:
            job = data.draw(st.sampled_from([job for _, job, _ in asked]))
            job.cancelled = True
            cancelled.add(job)
        elif move == "step":
            desk.step()
    desk.finish()
    for item, job, told in asked:
        expected = alone(item)
        if told.reason is FinishReason.CANCELLED:
            assert job in cancelled
            assert told.ids == expected[: len(told.ids)]
        else:
            assert told.ids == expected
    assert desk.scheduler.stats().running == 0


def test_a_seeded_answer_does_not_depend_on_its_company():
    item = request([3, 4, 5], options={"do_sample": True, "temperature": 1.5, "seed": 7})
    lonely = Desk(model(), limits())
    _, expected = lonely.submit(item)
    lonely.finish()
    desk = Desk(model(), limits())
    for start in range(4):
        desk.submit(request([start] * 9, options={"do_sample": True, "seed": start}))
    _, told = desk.submit(item)
    desk.finish()
    assert told.ids == expected.ids
    assert len(told.ids) == 8


def test_several_answers_to_one_prompt_differ_and_share_its_computation():
    desk = Desk(model(), limits(slots=4, prefill_chunk=8))
    prompt = list(np.random.default_rng(0).integers(0, VOCAB, 40))
    told = [
        desk.submit(request(prompt, choice=i, options={"do_sample": True, "temperature": 2.0, "seed": 1}))[1]
        for i in range(3)
    ]
    desk.finish()
    assert len({tuple(answer.ids) for answer in told}) == 3
    assert [answer.cached for answer in told] == [0, 39, 39]
    assert sum(step.prompt_tokens for step in desk.steps) == 40 + 1 + 1


def test_the_next_turn_of_a_conversation_computes_only_what_is_new():
    desk = Desk(model(), limits())
    prompt = [5] * 20
    _, first = desk.submit(request(prompt))
    desk.finish()
    _, second = desk.submit(request([*prompt, *first.ids, 9, 9]))
    desk.finish()
    assert second.cached == 20 + 7  # the last token was never computed
    assert sum(step.prompt_tokens for step in desk.steps) == 20 + 3


def test_a_beginning_that_a_busy_row_holds_is_copied():
    desk = Desk(model(), limits())
    system = list(np.random.default_rng(1).integers(0, VOCAB, 30))
    desk.submit(request([*system, 1], tokens=40))
    while not desk.steps or desk.steps[-1].prompt_tokens:
        desk.step()
    _, second = desk.submit(request([*system, 2]))
    desk.finish()
    assert second.cached == 30


def test_conversations_that_only_begin_alike_keep_rows_of_their_own():
    """Two users with one system message take turns; neither loses its history to the other."""
    desk = Desk(model(), limits(slots=2))
    system = list(np.random.default_rng(2).integers(0, VOCAB, 16))
    history = {"a": [*system, *[3] * 20], "b": [*system, *[4] * 20]}
    cached = []
    for turn in range(3):
        for user in "ab":
            _, told = desk.submit(request(history[user], tokens=3))
            desk.finish()
            cached.append((turn, told.cached, len(history[user])))
            history[user] += [*told.ids, 7]
    assert all(length - held <= 4 for turn, held, length in cached if turn)


def test_as_many_run_as_have_blocks_however_long_they_might_have_been():
    """Two of full length fit; eight short ones run at once."""
    desk = Desk(model(), limits(slots=8, pool_tokens=192))
    told = [desk.submit(request([i] * 10, tokens=12))[1] for i in range(8)]
    desk.step()
    assert all(answer.started for answer in told)
    desk.finish()
    assert all(answer.ids == alone(request([i] * 10, tokens=12)) for i, answer in enumerate(told))


def test_a_request_waits_for_blocks_and_is_not_passed():
    desk = Desk(model(), limits(slots=8, pool_tokens=96))
    first, _ = desk.submit(request([1] * 8, tokens=50))
    big, waiting = desk.submit(request([2] * 8, tokens=60))
    _, small = desk.submit(request([3], tokens=4))
    for _ in range(10):
        desk.step()
    assert not waiting.started
    assert not small.started
    stats = desk.scheduler.stats()
    assert (stats.running, stats.waiting) == (1, 2)
    first.cancelled = True
    step = desk.step()
    assert step.jobs[0] is big
    desk.finish()
    assert waiting.ids == alone(request([2] * 8, tokens=60))
    assert small.ids == alone(request([3], tokens=4))


def test_a_request_that_is_cancelled_while_it_waits_for_blocks_lets_the_next_one_in():
    desk = Desk(model(), limits(slots=8, pool_tokens=96))
    desk.submit(request([1] * 8, tokens=50))
    big, _ = desk.submit(request([2] * 8, tokens=60))
    _, small = desk.submit(request([3], tokens=4))
    desk.step()
    big.cancelled = True
    desk.step()
    assert small.started


def test_ended_conversations_give_their_blocks_up_the_least_recent_first():
    desk = Desk(model(), limits(slots=2, pool_tokens=128))
    histories = []
    for start in (3, 4, 5):
        _, told = desk.submit(request([start] * 20, tokens=20))
        desk.finish()
        histories.append([*[start] * 20, *told.ids, 9])
    assert desk.scheduler.stats().kv_tokens == 3 * 40
    desk.submit(request([6] * 20, tokens=20))
    desk.finish()
    cached = []
    for history in reversed(histories):
        _, told = desk.submit(request(history, tokens=1))
        desk.finish()
        cached.append(told.cached)
    assert cached == [39, 39, 0]


def test_a_shared_beginning_takes_its_blocks_once():
    desk = Desk(model(), limits(slots=4, pool_tokens=104))  # 13 blocks: 7 for one, 2 for each other
    system = list(np.random.default_rng(3).integers(0, VOCAB, 44))
    told = [desk.submit(request([*system, i], tokens=8))[1] for i in range(4)]
    desk.finish()
    assert [answer.cached for answer in told] == [0, 44, 44, 44]
    assert max(len(step.jobs) for step in desk.steps) == 4
    assert [a.ids for a in told] == [alone(request([*system, i], tokens=8)) for i in range(4)]


def test_a_cancelled_request_frees_its_row_before_the_next_step():
    desk = Desk(model(), limits(slots=1))
    job, first = desk.submit(request([1, 2], tokens=80))
    _, second = desk.submit(request([3, 4]))
    for _ in range(5):
        desk.step()
    assert not second.started
    job.cancelled = True
    step = desk.step()
    assert first.reason is FinishReason.CANCELLED
    assert [part.request.prompt for part in step.jobs] == [(3, 4)]


def test_a_request_that_is_cancelled_in_the_queue_never_starts():
    desk = Desk(model(), limits(slots=1))
    desk.submit(request([1], tokens=30))
    job, told = desk.submit(request([2]))
    desk.step()
    job.cancelled = True
    desk.step()
    assert told.reason is FinishReason.CANCELLED
    assert not told.started


def test_running_answers_get_a_token_in_every_step_while_a_long_prompt_is_computed():
    desk = Desk(model(), limits(prefill_chunk=16))
    _, running = desk.submit(request([1, 2], tokens=60))
    desk.step()
    desk.submit(request(list(range(VOCAB)) * 3, tokens=2))
    for expected in range(2, 6):
        step = desk.step()
        assert step.prompt_tokens <= 16
        assert len(running.ids) == expected


def test_a_short_prompt_does_not_wait_for_a_long_one():
    desk = Desk(model(), limits(prefill_chunk=16))
    desk.submit(request(list(range(VOCAB)) * 3, tokens=2))
    _, short = desk.submit(request([5, 6, 7], tokens=2))
    desk.step()
    assert len(short.ids) == 1


def test_clients_take_turns_however_much_one_of_them_asks():
    desk = Desk(model(), limits(slots=2))
    busy = [desk.submit(request([i], tokens=4, client="busy"))[1] for i in range(8)]
    _, other = desk.submit(request([9], tokens=4, client="other"))
    while not other.ended:
        desk.step()
    assert sum(told.started for told in busy) <= 4


def test_the_queue_is_bounded():
    desk = Desk(model(), limits(slots=1, queue=2))
    told = [desk.submit(request([i]))[1] for i in range(3)]  # one is as good as running
    with pytest.raises(OverloadedError, match="queue is full"):
        desk.submit(request([4]))
    desk.finish()
    assert all(answer.reason is FinishReason.LENGTH for answer in told)


def test_one_client_may_have_a_bound_of_its_own():
    desk = Desk(model(), limits(slots=1, queue=9, queue_per_client=1))
    for prompt in ([1], [2]):
        desk.submit(request(prompt, client="greedy"))
    with pytest.raises(OverloadedError, match="your requests"):
        desk.submit(request([3], client="greedy"))
    desk.submit(request([3], client="other"))


def test_time_is_limited_in_the_queue_and_on_the_way():
    desk = Desk(model(), limits(slots=1))
    _, slow = desk.submit(request([1], tokens=50, time_limit=6))
    _, waiting = desk.submit(request([2], time_limit=3))
    _, patient = desk.submit(request([3]))
    desk.finish()
    assert isinstance(waiting.error, TimeLimitError)
    assert not waiting.started
    assert isinstance(slow.error, TimeLimitError)
    assert 4 <= len(slow.ids) <= 6
    assert patient.ids == alone(request([3]))


class FailingModel(ScriptedModel):
    """Fails once, at the call of that number, after it has changed its cache."""

    def __init__(self, at: int) -> None:
        super().__init__(hashed_scores(VOCAB, scale=1.5), VOCAB, seq_length=96)
        self._at = at

    def extend(self, cache, rows, tokens):
        scores = super().extend(cache, rows, tokens)
        if len(self.calls) == self._at:
            raise BackendError("a kernel failed")
        return scores


def test_a_step_that_fails_costs_its_own_requests_only():
    desk = Desk(FailingModel(at=3), limits(slots=2))
    told = [desk.submit(request([i, i]))[1] for i in range(4)]
    desk.finish()
    assert [isinstance(answer.error, BackendError) for answer in told] == [True, True, False, False]
    assert [answer.ids for answer in told[2:]] == [alone(request([i, i])) for i in (2, 3)]
    _, again = desk.submit(request([0, 0]))
    desk.finish()
    assert again.cached == 0  # what a failed step left behind is not trusted
    assert again.ids == alone(request([0, 0]))


def test_scores_that_are_not_finite_cost_their_own_request_only():
    table = {(0,): [np.nan] * VOCAB, (5,): [float(i == 6) for i in range(VOCAB)]}
    broken = ScriptedModel(ngram_scores(table, VOCAB), VOCAB, seq_length=96)
    desk = Desk(broken, limits())
    _, bad = desk.submit(request([0]))
    _, good = desk.submit(request([5], tokens=1))
    desk.finish()
    assert isinstance(bad.error, NonFiniteLogitsError)
    assert good.ids == [6]


def test_a_listener_that_fails_loses_its_own_request_only():
    from glm3.domain.engine.job import Job

    desk = Desk(model(), limits())

    def broken(_event):
        raise RuntimeError("gone")

    desk.scheduler.enqueue(Job(desk.model, desk.tokens, request([1], tokens=50), broken, 0.0))
    _, told = desk.submit(request([2]))
    desk.finish()
    assert told.ids == alone(request([2]))
    assert len(desk.steps) <= 10


@given(st.lists(st.lists(st.integers(3, VOCAB - 1), min_size=1, max_size=5), min_size=1, max_size=4))
def test_an_answer_begins_as_it_must_and_goes_on_freely(openings):
    desk = Desk(model(), limits())
    _, told = desk.submit(request([4, 4], tokens=9, openings=openings))
    desk.finish()
    assert any(told.ids[: len(opening)] == opening for opening in openings)
    begun = next(o for o in sorted(openings, key=len) if told.ids[: len(o)] == o)
    go_on = request([4, 4, *begun], tokens=9 - len(begun))
    assert told.ids[len(begun) :] == alone(go_on)


def test_the_likeliest_alternatives_come_best_first():
    desk = Desk(model(), limits())
    _, told = desk.submit(request([3], options={"logprobs": True}, top_logprobs=4))
    desk.finish()
    for token in told.events:
        if isinstance(token, Produced):
            values = [logprob for _, logprob in token.top_logprobs]
            assert len(values) == 4
            assert values == sorted(values, reverse=True)
            assert token.top_logprobs[0] == (token.id, token.logprob)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (request([]), InvalidInputError),
        (request([VOCAB]), InvalidInputError),
        (request([1] * 96), ContextLengthError),
        (request([1], options={"num_beams": 2}), InvalidInputError),
    ],
)
def test_what_cannot_be_answered_is_refused_at_once(asked, error):
    with pytest.raises(error):
        Desk(model(), limits()).submit(asked)

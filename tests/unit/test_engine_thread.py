"""The engine in its thread: submitted to, cancelled and stopped from others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from glm3.adapters.memory.scripted_model import ScriptedModel, hashed_scores
from glm3.application.engine import Engine
from glm3.domain.decoding import generate
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.engine.request import Cancelled, EngineRequest, Failed, Produced
from glm3.domain.errors import BackendError, UnavailableError
from glm3.domain.generation import GenerationConfig

VOCAB = 20


def model() -> ScriptedModel:
    return ScriptedModel(hashed_scores(VOCAB), VOCAB, seq_length=64)


@contextmanager
def running(model: ScriptedModel, **limits: int) -> Iterator[Engine]:
    engine = Engine(model, EngineLimits(**{"slots": 4, "slot_tokens": 64, **limits}))
    thread = engine.start()
    try:
        yield engine
    finally:
        engine.stop()
        thread.join(timeout=10)
        assert not thread.is_alive()


def request(prompt: list[int], tokens: int = 10) -> EngineRequest:
    return EngineRequest(prompt=prompt, options=GenerationConfig(max_new_tokens=tokens))


def test_many_threads_get_the_answers_of_lone_requests():
    requests = [request([i % VOCAB, i % 7, i % 3]) for i in range(24)]
    answers: dict[int, list[int]] = {}
    with running(model()) as engine:

        def ask(number: int) -> None:
            answers[number] = [token.id for token in engine.stream(requests[number])]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(requests))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert engine.wait_idle(5)
    for number, asked in enumerate(requests):
        assert answers[number] == list(generate(model(), [asked.prompt], asked.options)[0].new_ids)


def test_closing_the_iterator_cancels():
    with running(model()) as engine:
        stream = engine.stream(request([1], tokens=60))
        assert next(stream).id >= 0
        stream.close()
        assert engine.wait_idle(5)
        assert engine.stats().running == 0


class Slow(ScriptedModel):
    """Waits for a permission before each call."""

    def __init__(self) -> None:
        super().__init__(hashed_scores(VOCAB), VOCAB, seq_length=64)
        self.may = threading.Semaphore(0)

    def extend(self, cache, rows, tokens):
        assert self.may.acquire(timeout=10)
        return super().extend(cache, rows, tokens)


def test_a_cancellation_takes_effect_before_the_next_step():
    slow = Slow()
    with running(slow) as engine:
        told = []
        ended = threading.Event()

        def listen(event):
            told.append(event)
            if isinstance(event, Cancelled):
                ended.set()

        ticket = engine.submit(request([1], tokens=60), listen)
        ticket.cancel()
        ticket.cancel()  # twice is once
        slow.may.release()
        assert ended.wait(5)
        assert sum(isinstance(event, Produced) for event in told) <= 1
        assert isinstance(told[-1], Cancelled)
        slow.may.release(100)


def test_a_closed_engine_takes_nothing_new_and_finishes_what_it_has():
    with running(model()) as engine:
        stream = engine.stream(request([1], tokens=30))
        engine.close()
        with pytest.raises(UnavailableError):
            engine.submit(request([2]), print)
        assert len(list(stream)) == 30
        assert engine.wait_idle(5)


def test_stopping_ends_what_runs():
    slow = Slow()
    with running(slow) as engine:
        events = []
        ended = threading.Event()

        def listen(event):
            events.append(event)
            if isinstance(event, Failed):
                ended.set()

        engine.submit(request([1], tokens=60), listen)
        engine.stop()
        slow.may.release(100)
        assert ended.wait(5)
        assert isinstance(events[-1].error, UnavailableError)


class Broken(ScriptedModel):
    def __init__(self) -> None:
        super().__init__(hashed_scores(VOCAB), VOCAB, seq_length=64)
        self.broken = True

    def extend(self, cache, rows, tokens):
        if self.broken:
            raise RuntimeError("no such kernel")
        return super().extend(cache, rows, tokens)


def test_the_engine_survives_a_model_that_fails():
    broken = Broken()
    with running(broken) as engine:
        with pytest.raises(BackendError, match="no such kernel"):
            list(engine.stream(request([1])))
        broken.broken = False
        assert len(list(engine.stream(request([1])))) == 10
        assert engine.failed_steps == 1


def test_slots_are_cut_to_the_models_context():
    assert Engine(model(), EngineLimits(slots=1, slot_tokens=10_000)).slot_tokens == 64

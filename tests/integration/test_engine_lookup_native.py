"""Look-up in the engine over real networks: the same ids and scores as without, in fewer passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attrs import evolve

from glm3.domain.conversation import Message, Role
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.engine.request import EngineRequest, Event, Produced
from glm3.domain.generation import GenerationConfig
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.prompt import PromptBuilder
from glm3.entrypoints.container import build_container
from support.engine import Desk
from support.native import kernel_build

FEW = EngineLimits(slots=3, slot_tokens=160, prefill_chunk=5, kept=2)
"""No pass has more than eight tokens, so that all sums are those of one token, to the bit."""

DOCUMENT = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n"


@pytest.fixture(
    scope="module",
    params=[LoadOptions(), LoadOptions(quant="int4"), LoadOptions(quant="int8", kv_cache="int8")],
    ids=["fp32", "int4", "int8"],
)
def loaded(request):
    kernel_build()  # skips where no compiler is
    return build_container().models().load("tiny", request.param)


def produced(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, Produced)]


def alone(model: Any, asked: EngineRequest) -> list[Event]:
    """Return what a request is told when it runs alone, one token a pass."""
    desk = Desk(model, evolve(FEW, lookup=False))
    _, told = desk.submit(asked)
    desk.finish()
    return produced(told.events)


@pytest.mark.parametrize("seed", range(3))
def test_answers_are_to_the_bit_those_without_look_up(loaded, seed, monkeypatch):
    """Few ids repeat often; some requests are cancelled; blocks are small and, but for one seed, few."""
    monkeypatch.setattr("glm3.adapters.mindspore.inference.cache.BLOCK_SIZE", 4)
    draw = np.random.default_rng(seed)
    desk = Desk(loaded.model, evolve(FEW, pool_tokens=(None, 160, 200)[seed]))
    system = draw.integers(0, 12, 20).tolist()
    asked = []
    for number in range(8):
        prompt = [
            *(system if draw.random() < 0.5 else []),
            *draw.integers(0, 12, draw.integers(1, 20)).tolist(),
        ]
        options = GenerationConfig(
            max_new_tokens=int(draw.integers(10, 80)),
            do_sample=bool(draw.random() < 0.5),
            temperature=0.6,
            repetition_penalty=float(draw.choice([1.0, 1.1])),
            seed=number,
            logprobs=True,
            vocab_size=int(draw.choice([5, 12])),
        )
        request = EngineRequest(prompt=prompt, options=options, top_logprobs=2)
        asked.append((request, *desk.submit(request)))
        for _ in range(draw.integers(0, 20)):
            desk.step()
        if draw.random() < 0.2:
            asked[int(draw.integers(0, len(asked)))][1].cancelled = True
    desk.finish()
    assert any(step.guessed and len(step.jobs) > 1 for step in desk.steps)
    for request, job, told in asked:
        found, expected = produced(told.events), alone(loaded.model, request)
        assert found == (expected[: len(found)] if job.cancelled else expected)


@pytest.mark.parametrize("streams", [1, 3])
def test_answers_that_repeat_take_fewer_passes(loaded, streams):
    """The embedded model falls into loops in whatever goes on for long."""
    prompt = PromptBuilder(loaded.tokenizer).build([Message(Role.USER, DOCUMENT)])
    options = GenerationConfig(max_new_tokens=120, min_new_tokens=120)
    options = options.for_vocabulary(loaded.tokenizer.special_tokens)
    asked = EngineRequest(prompt=prompt, options=options)
    passes, answers = {}, {}
    for lookup in (True, False):
        desk = Desk(loaded.model, EngineLimits(slots=streams, slot_tokens=512, lookup=lookup))
        told = [desk.submit(asked)[1] for _ in range(streams)]
        desk.finish()
        passes[lookup], answers[lookup] = len(desk.steps), [answer.ids for answer in told]
    assert answers[True] == answers[False]
    assert passes[True] < passes[False]

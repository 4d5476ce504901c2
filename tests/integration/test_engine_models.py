"""Real networks answer in company what they answer alone."""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.domain.decoding import generate
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.engine.request import EngineRequest
from glm3.domain.generation import GenerationConfig
from support.engine import Desk
from support.models import KERNEL_SETS, mindspore_model, tiny_config

CONFIG = tiny_config(seq_length=64)


def build(name: str):
    oracle = NumpyModel.random(CONFIG, seed=3, scale=0.4)  # large weights, so that answers are no ties
    if name == "numpy":
        return oracle
    return mindspore_model(CONFIG, oracle.parameters(), kernels=name)


@pytest.mark.parametrize("name", ["numpy", *KERNEL_SETS])
@pytest.mark.parametrize("seed", range(3))
def test_greedy_answers_are_those_of_lone_requests(name, seed, monkeypatch):
    """Prompts share beginnings, answers end and are cancelled at random; chunks are cut differently.

    Blocks are small and, but for one seed, too few for three requests of full length.
    """
    monkeypatch.setattr("glm3.adapters.mindspore.inference.cache.BLOCK_SIZE", 4)
    model = build(name)
    draw = np.random.default_rng(seed)
    system = list(map(int, draw.integers(0, 48, 18)))
    pool_tokens = (None, 64, 100)[seed]
    chunk = int(draw.integers(4, 20))
    desk = Desk(model, EngineLimits(slots=3, slot_tokens=64, prefill_chunk=chunk, pool_tokens=pool_tokens))
    asked = []
    for _ in range(12):
        beginning = system if draw.random() < 0.5 else []
        prompt = [*beginning, *map(int, draw.integers(0, 48, draw.integers(1, 16)))]
        options = GenerationConfig(max_new_tokens=int(draw.integers(1, 14)), stop_ids=[5])
        request = EngineRequest(prompt=prompt, options=options, client=str(draw.integers(0, 2)))
        asked.append((request, *desk.submit(request)))
        for _ in range(draw.integers(0, 4)):
            desk.step()
        if draw.random() < 0.2:
            asked[int(draw.integers(0, len(asked)))][1].cancelled = True
    desk.finish()
    for request, job, told in asked:
        expected = list(generate(model, [request.prompt], request.options)[0].new_ids)
        assert told.ids == (expected[: len(told.ids)] if job.cancelled else expected)
    again = EngineRequest(prompt=[*system, 7], options=GenerationConfig(max_new_tokens=6))
    _, first = desk.submit(again)
    desk.finish()
    _, second = desk.submit(again)
    desk.finish()
    assert second.cached == len(system)
    assert first.ids == second.ids == list(generate(model, [again.prompt], again.options)[0].new_ids)

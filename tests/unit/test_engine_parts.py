"""The pieces of the engine: turns, rows and chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.scripted_model import ScriptedCache
from glm3.domain.engine.chunk_budget import ChunkBudget
from glm3.domain.engine.fair_queue import FairQueue
from glm3.domain.engine.kv_rows import KVRows, common_prefix
from glm3.domain.engine.limits import EngineLimits, limits_within
from glm3.domain.errors import InvalidInputError, OverloadedError
from glm3.domain.model_config import ModelConfig


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers()), max_size=30))
def test_every_item_comes_out_once_and_a_clients_own_in_order(items):
    queue = FairQueue(30)
    for client, value in items:
        queue.push(client, (client, value))
    out = [queue.pop({}) for _ in range(len(items))]
    assert sorted(out) == sorted(items)
    for client in "abcd":
        assert [v for c, v in out if c == client] == [v for c, v in items if c == client]
    assert len(queue) == 0


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_among_equals_nobody_is_passed_twice(clients):
    queue = FairQueue(30)
    for client in clients:
        queue.push(client, client)
    out = [queue.pop({}) for _ in clients]
    for client in set(clients):
        gap = out.index(client)
        assert gap < len(set(clients))


def test_who_is_served_least_is_next():
    queue = FairQueue(5)
    for client in "ab":
        queue.push(client, client)
    assert queue.pop({"a": 3, "b": 1}) == "b"


def test_items_are_taken_out_of_the_queue():
    queue = FairQueue(4)
    for client, value in (("a", 1), ("a", 2), ("b", 3)):
        queue.push(client, value)
    assert queue.remove(lambda value: value != 2) == [1, 3]
    assert (list(queue), len(queue)) == ([2], 1)


def test_free_places_are_beyond_the_bound():
    queue = FairQueue(0)
    queue.push("a", 1, free=1)
    with pytest.raises(OverloadedError):
        queue.push("a", 2, free=1)


short_ids = st.lists(st.integers(0, 2), min_size=1, max_size=40)


@given(short_ids, short_ids)
def test_the_common_prefix_is_the_longest(one, other):
    length = common_prefix(np.array(one, np.int32), np.array(other, np.int32))
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]


@given(st.data())
def test_a_claimed_row_holds_a_beginning_of_the_prompt_and_can_always_grow(data):
    cache = ScriptedCache(data.draw(st.integers(1, 5)), 64, data.draw(st.integers(64, 200)))
    rows = KVRows(cache)
    held: dict[int, list[int]] = {}
    limit: dict[int, int] = {}
    for _ in range(data.draw(st.integers(1, 30))):
        move = data.draw(st.sampled_from(["claim", "claim", "grow", "release"]))
        if move == "claim" and len(held) < cache.rows:
            prompt = np.array(data.draw(short_ids), np.int32)
            most = data.draw(st.integers(len(prompt), 64))
            best = rows.best_prefix(prompt)
            claimed = rows.claim(prompt, most)
            if claimed is None:
                assert held, "a lone request always fits"
                assert rows.claim(prompt, most) is None
                continue
            row, kept = claimed
            assert row not in held
            assert kept <= best < len(prompt)
            assert cache.ids[row] == list(prompt[:kept])
            held[row], limit[row] = list(prompt[:kept]), most
        elif move == "grow" and held:
            chosen = data.draw(st.lists(st.sampled_from(sorted(held)), unique=True))
            grown = [row for row in chosen if len(held[row]) < limit[row]]
            new = [data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=20)) for _ in grown]
            new = [ids[: limit[row] - len(held[row])] for row, ids in zip(grown, new, strict=True)]
            rows.make_room(grown, list(map(len, new)))
            cache.write(grown, new)
            for row, ids in zip(grown, new, strict=True):
                rows.append(row, ids)
                held[row] += ids
        elif move == "release" and held:
            row = data.draw(st.sampled_from(sorted(held)))
            del held[row]
            if data.draw(st.integers(0, 3)) == 0:
                rows.forget(row)
            rows.release(row)
        assert all(cache.ids[other] == ids for other, ids in held.items())


def test_what_a_failed_call_left_in_the_cache_is_dropped():
    cache = ScriptedCache(1, 64)
    rows = KVRows(cache)
    row, _ = rows.claim(np.array([1, 2], np.int32), 5)
    cache.write([row], [[1, 2, 9]])
    rows.append(row, [1, 2])
    rows.release(row)
    assert rows.claim(np.array([1, 2, 3], np.int32), 5) == (0, 2)
    assert cache.ids == [[1, 2]]


def test_chunks_are_as_long_as_a_step_may_take():
    budget = ChunkBudget(largest=512, step_seconds=0.5)
    assert 16 <= budget.tokens(answers_run=True) < budget.tokens(answers_run=False) < 512
    budget.observe(64, seconds=0.8)  # 80 tokens a second
    assert budget.tokens(answers_run=True) == 40
    assert budget.tokens(answers_run=False) == 160
    for _ in range(30):
        budget.observe(64, seconds=10.0)
    assert budget.tokens(answers_run=True) == 16
    for _ in range(60):
        budget.observe(512, seconds=0.01)
    assert budget.tokens(answers_run=True) == 512
    budget.observe(3, seconds=100.0)  # says nothing about prompts
    assert budget.tokens(answers_run=True) == 512


def test_the_pool_follows_the_memory():
    config = ModelConfig()  # 28 layers, 2 groups of 128: 57,344 bytes a token in float32
    limits = limits_within(2**30, config)
    assert limits.pool_tokens == 2**30 // 57_344
    assert (limits.slots, limits.slot_tokens) == (9, 8192)
    narrow = limits_within(2**30, config, "fp16", slots=3, slot_tokens=2048, queue=7)
    assert narrow.pool_tokens == 2**30 // 28_672
    assert (narrow.slots, narrow.slot_tokens, narrow.queue) == (3, 2048, 7)
    assert limits_within(2**40, config).slots == 64


def test_a_pool_for_less_than_the_context_makes_requests_shorter():
    limits = limits_within(57_344 * 1000, ModelConfig())
    assert (limits.slot_tokens, limits.pool_tokens) == (1000, 1000)


def test_a_pool_for_less_than_one_request_is_explained():
    with pytest.raises(InvalidInputError, match=r"slot_tokens = 2048.*1000") as caught:
        limits_within(57_344 * 1000, ModelConfig(), slot_tokens=2048)
    assert "--kv-memory" in caught.value.hint
    assert "--slot-tokens" in caught.value.hint


@pytest.mark.parametrize(
    "wrong", [{"slots": 0}, {"slot_tokens": 1}, {"queue": -1}, {"prefill_chunk": 0}, {"step_seconds": 0.0}]
)
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EngineLimits(**wrong)

"""Rows over a pool of blocks, behind a learned prefix and without one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.domain.engine.paged_rows import PagedRows
from glm3.domain.errors import BackendError, InvalidInputError


class Written(PagedRows):
    """Remember what was written where, as the memory of a cache does."""

    def __init__(self, rows, capacity, size, pool=None, prefix=0):
        super().__init__(rows, capacity, size, pool, prefix)
        self.memory = [None] * (self.blocks * size)
        for place, slot in enumerate(self.prefix_slots):
            self.memory[slot] = f"prefix {place}"

    def copy_block(self, source, target):
        size = self.block_size
        self.memory[target * size : (target + 1) * size] = self.memory[source * size : (source + 1) * size]

    def write(self, rows, tokens):
        starts = [self.length(row) for row in rows]
        self.grow(rows, list(map(len, tokens)))
        for row, start, ids in zip(rows, starts, tokens, strict=True):
            for slot, token in zip(self.slots(row, start), ids, strict=True):
                self.memory[slot] = token

    def read(self, row):
        return [self.memory[slot] for slot in self.slots(row, -self.prefix)]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_rows_read_back_what_was_written_whatever_they_share(data):
    size, prefix = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 7))
    cache = Written(3, 12, size, data.draw(st.one_of(st.none(), st.integers(1, 40))), prefix)
    held, fresh = [[], [], []], iter(range(10_000))
    everyone = range(3)
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(["write", "write", "copy", "truncate"])):
            case "write":
                rows = data.draw(st.lists(st.sampled_from(everyone), unique=True, min_size=1))
                tokens = [
                    [next(fresh) for _ in range(data.draw(st.integers(1, 4)))][: 12 - len(held[row])]
                    for row in rows
                ]
                free, needed = cache.free_blocks, cache.growth(rows, list(map(len, tokens)))
                if needed > free:
                    with pytest.raises(BackendError, match="block pool is out of memory"):
                        cache.write(rows, tokens)
                    assert cache.free_blocks == free
                else:
                    cache.write(rows, tokens)
                    assert cache.free_blocks == free - needed
                    for row, ids in zip(rows, tokens, strict=True):
                        held[row] += ids
            case "copy":
                source, target = (data.draw(st.sampled_from(everyone)) for _ in range(2))
                length = data.draw(st.integers(0, len(held[source])))
                cache.copy_row(source, target, length)
                held[target] = held[source][:length]
            case "truncate":
                row = data.draw(st.sampled_from(everyone))
                length = data.draw(st.integers(0, len(held[row])))
                cache.truncate(row, length)
                del held[row][length:]
        for row in everyone:
            assert cache.read(row) == [f"prefix {place}" for place in range(prefix)] + held[row]
            assert tuple(cache.tables[row, : len(cache.table(row))]) == cache.table(row)
    for row in everyone:
        cache.truncate(row, 0)
    assert cache.free_blocks == cache.blocks - -(-prefix // size)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_demand_is_what_rows_come_to_hold(data):
    """Whoever grows first, by however much at once: no more blocks are needed, and no fewer in the end."""
    size, prefix = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 7))
    cache = Written(4, 12, size, prefix=prefix)
    for row in range(4):
        if row and data.draw(st.booleans()):
            source = data.draw(st.integers(0, row - 1))
            cache.copy_row(source, row, data.draw(st.integers(0, cache.length(source))))
        ids = range(data.draw(st.integers(0, 12 - cache.length(row))))
        if ids:
            cache.write([row], [ids])
    kept = data.draw(st.sets(st.integers(0, 3), min_size=1))
    lengths = {row: data.draw(st.integers(cache.length(row), 12)) for row in kept}
    demand = cache.demand(lengths)
    for row in set(range(4)) - kept:
        cache.truncate(row, 0)
    for _ in range(40):
        left = [row for row in lengths if cache.length(row) < lengths[row]]
        if not left:
            break
        row = data.draw(st.sampled_from(left))
        count = data.draw(st.integers(1, lengths[row] - cache.length(row)))
        cache.write([row], [range(count)])
        assert cache.demand(lengths) == demand
    else:
        raise AssertionError("rows did not come to their lengths")
    assert cache.blocks - cache.free_blocks == demand


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 9))
def test_the_smallest_pool_holds_one_full_row(capacity, size, prefix):
    cache = Written(3, capacity, size, pool=1, prefix=prefix)
    cache.write([1], [range(capacity)])
    assert cache.length(1) == capacity
    assert cache.free_blocks == 0


def test_a_row_that_takes_over_more_than_there_is_is_refused():
    cache = Written(2, 8, 4)
    cache.write([0], [[1, 2, 3]])
    with pytest.raises(InvalidInputError):
        cache.copy_row(0, 1, 4)
    assert cache.read(0) == [1, 2, 3]

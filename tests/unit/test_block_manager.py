"""The block manager against a plain model of memory, whatever is called in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from glm3.domain.engine.block_manager import BlockManager
from glm3.domain.errors import BackendError, InvalidInputError

BLOCKS, SIZE, RESERVED = 12, 4, 1


class BlockManagerMachine(RuleBasedStateMachine):
    """Write every token into the pool as the manager says, and read each sequence back."""

    sequences = Bundle("sequences")

    def __init__(self):
        super().__init__()
        self.manager = BlockManager(BLOCKS, SIZE, reserved=RESERVED)
        self.pool = [None] * (BLOCKS * SIZE)
        self.held = {}
        self.next_name = 0
        self.next_token = 0

    def append(self, name, tokens):
        before = (self.manager.table(name), self.manager.length(name), self.manager.free_blocks)
        try:
            copies = self.manager.append(name, tokens)
        except BackendError:
            after = (self.manager.table(name), self.manager.length(name), self.manager.free_blocks)
            assert after == before
            return
        for source, target in copies:
            self.pool[target * SIZE : (target + 1) * SIZE] = self.pool[source * SIZE : (source + 1) * SIZE]
        for slot in self.manager.slots(name, len(self.held[name])):
            self.pool[slot] = self.next_token
            self.held[name].append(self.next_token)
            self.next_token += 1

    @rule(target=sequences, tokens=st.integers(0, 9))
    def allocate(self, tokens):
        name = self.next_name
        self.next_name += 1
        self.manager.allocate(name)
        self.held[name] = []
        self.append(name, tokens)
        return name

    @rule(name=sequences, tokens=st.integers(0, 9))
    def extend(self, name, tokens):
        self.append(name, tokens)

    @rule(target=sequences, source=sequences)
    def fork(self, source):
        name = self.next_name
        self.next_name += 1
        self.manager.fork(source, name)
        self.held[name] = list(self.held[source])
        return name

    @rule(name=sequences, share=st.floats(0, 1))
    def truncate(self, name, share):
        length = int(share * len(self.held[name]))
        self.manager.truncate(name, length)
        del self.held[name][length:]

    @rule(target=sequences, name=consumes(sequences))
    def free(self, name):
        self.manager.free(name)
        del self.held[name]
        return multiple()

    @invariant()
    def every_sequence_reads_back(self):
        for name, tokens in self.held.items():
            assert [self.pool[slot] for slot in self.manager.slots(name)] == tokens

    @invariant()
    def blocks_are_counted(self):
        tables = [self.manager.table(name) for name in self.held]
        for block in range(BLOCKS):
            assert self.manager.references(block) == sum(table.count(block) for table in tables)
        used = {block for table in tables for block in table}
        assert not used & set(range(RESERVED))
        assert self.manager.free_blocks == BLOCKS - RESERVED - len(used)


BlockManagerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBlockManager = BlockManagerMachine.TestCase


def test_full_pool_names_what_to_set():
    manager = BlockManager(2, 4)
    manager.allocate(0, 8)
    with pytest.raises(BackendError, match="block pool is out of memory") as caught:
        manager.append(0)
    assert caught.value.field == "num_blocks"
    assert "model_config.num_blocks" in caught.value.hint


def test_a_sequence_that_finds_too_few_blocks_does_not_begin():
    manager = BlockManager(2, 4)
    with pytest.raises(BackendError, match="block pool is out of memory"):
        manager.allocate(0, 9)
    assert manager.sequences == ()
    assert manager.free_blocks == 2


def test_a_fork_copies_only_the_block_it_writes_into():
    manager = BlockManager(8, 4)
    manager.allocate(0, 6)
    manager.fork(0, 1)
    full, half = manager.table(0)
    assert manager.append(1) == [(half, manager.table(1)[1])]
    assert manager.table(1)[0] == full
    assert manager.append(0) == []


@pytest.mark.parametrize("call", [lambda m: m.free(7), lambda m: m.table(7), lambda m: m.fork(7, 8)])
def test_unknown_sequences_are_refused(call):
    with pytest.raises(InvalidInputError, match="no such sequence"):
        call(BlockManager(2, 4))


@pytest.mark.parametrize("sizes", [(0, 4, 0), (2, 0, 0), (2, 4, 2)])
def test_a_pool_without_blocks_is_refused(sizes):
    blocks, size, reserved = sizes
    with pytest.raises(InvalidInputError, match="a pool needs blocks"):
        BlockManager(blocks, size, reserved=reserved)

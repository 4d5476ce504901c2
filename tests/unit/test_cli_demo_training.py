"""When the demo trains with two ranks, and when it says why not."""

from __future__ import annotations

import pytest
from attrs import evolve

from glm3.adapters.memory.host import FakeHost
from glm3.entrypoints.cli.demo_training import lacking

GB = 1_000_000_000


@pytest.mark.parametrize(
    ("cores", "free", "told"),
    [
        (2, 2 * GB, None),
        (1, 9 * GB, "one core"),
        (2, 2 * GB - 1, "2 ranks take 2.0 GB"),
    ],
)
def test_two_ranks_need_two_cores_and_twice_the_memory(cores, free, told):
    facts = evolve(FakeHost().facts(), cores=cores, memory_available=free)
    found = lacking(facts, GB)
    assert found is None if told is None else told in str(found)

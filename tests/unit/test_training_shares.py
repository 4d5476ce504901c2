"""Rows that ranks share out."""

from __future__ import annotations

import numpy as np

from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.domain.lazy_arrays import LazyArrays
from glm3.domain.training.shares import complete_rows


def test_what_is_not_shared_is_read_when_it_is_looked_up():
    """A model that goes on from a checkpoint is never in memory twice."""
    read = []

    def make() -> np.ndarray:
        read.append("w")
        return np.ones((4, 2), np.float32)

    complete = complete_rows(LazyArrays({"w": make}), {"w": (4, 2)}, {}, SingleProcessCommunicator())
    assert list(complete) == ["w"]
    assert read == []
    assert complete["w"].shape == (4, 2)
    assert read == ["w"]

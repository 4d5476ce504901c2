"""Ranks that fail in real jobs: who is missing has a name, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from glm3.domain.errors import CommunicationError
from support.worlds import Processes


@pytest.fixture
def job():
    """Two ranks that wait 3 seconds for each other; left to be killed."""
    made = Processes(2, timeout=3.0)
    yield made
    made.kill()


def on_rank_be_late(communicator, late):
    begun = time.monotonic()
    if communicator.rank == late:
        time.sleep(5)
    try:
        communicator.all_reduce(np.ones(4, np.float32))
    except CommunicationError as error:
        return error.missing, str(error), time.monotonic() - begun
    return None


def on_rank_die_beside(communicator, dying):
    if communicator.rank == dying:
        os.kill(os.getpid(), signal.SIGKILL)
    return on_rank_be_late(communicator, -1)


def test_a_late_rank_is_named_and_then_a_killed_one(job):
    """The late one after the time-out; the killed one at once, long before MindSpore would fail."""
    (missing, told, seconds), _ = job.run(on_rank_be_late, 1)
    assert missing == (1,)
    assert "rank 1 missing: did not come to all_reduce" in told
    assert seconds < 5
    expect_death(job, 1)


def test_rank_zero_has_a_name_when_it_is_killed(job):
    """Although it is the one over which ranks meet."""
    expect_death(job, 0)


def expect_death(job, dying):
    job.begin(on_rank_die_beside, dying)
    ((missing, told, seconds),) = job.results([1 - dying], seconds=20)
    assert missing == (dying,)
    assert f"rank {dying} missing" in told
    assert seconds < 3

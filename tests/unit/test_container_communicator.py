"""Which communicator the environment asks for."""

from __future__ import annotations

import pytest

from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.adapters.mindspore import communicator
from glm3.entrypoints.container import build_container


@pytest.fixture
def joined(monkeypatch):
    """What the job was joined with, if it was."""
    found = []
    monkeypatch.setattr(communicator, "join_job", lambda *timeout: found.append(timeout) or "joined")
    for name in ("MS_ROLE", "RANK_SIZE", "GLM3_RANK_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    return found


@pytest.mark.parametrize("size", [None, "1", ""])
def test_a_process_on_its_own_joins_nothing(monkeypatch, joined, size):
    if size is not None:
        monkeypatch.setenv("RANK_SIZE", size)
    assert isinstance(build_container().communicator(), SingleProcessCommunicator)
    assert joined == []


@pytest.mark.parametrize(("name", "value"), [("MS_ROLE", "MS_WORKER"), ("RANK_SIZE", "8")])
def test_a_rank_joins_its_job_once(monkeypatch, joined, name, value):
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("GLM3_RANK_TIMEOUT", "5")
    container = build_container()
    assert container.communicator() == container.communicator() == "joined"
    assert joined == [(5.0,)]

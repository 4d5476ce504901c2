"""What every Host must hold to."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm3.adapters.host.local import LocalHost
from glm3.adapters.memory.host import FakeHost
from glm3.domain.host import HostFacts, RuntimeFacts
from glm3.domain.ports.host import Host


@pytest.fixture(params=[LocalHost, FakeHost], scope="module")
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Host:
    if request.param is LocalHost:
        cache: Path = tmp_path_factory.mktemp("cache")
        return LocalHost(cache, cache)
    return FakeHost()


def test_facts_are_complete_and_consistent(host: Host) -> None:
    facts = host.facts()
    assert isinstance(facts, HostFacts)
    assert facts.cpu_model
    assert facts.system
    assert 0 <= facts.memory_available <= facts.memory_total
    assert {"glm3", "mindspore", "numpy", "safetensors", "torch"} <= facts.packages.keys()


def test_asking_again_gives_the_same_machine(host: Host) -> None:
    first, second = host.facts(), host.facts()
    assert (first.cpu_model, first.cores, first.packages) == (second.cpu_model, second.cores, second.packages)


def test_the_runtime_is_tried_on_the_target_that_was_asked_for(host: Host) -> None:
    runtime = host.try_runtime("CPU")
    assert isinstance(runtime, RuntimeFacts)
    assert runtime.target == "CPU"
    assert runtime.passed

"""Who may ask, how often, and where a server may listen."""

from __future__ import annotations

import pytest

from glm3.application.serving.access import AccessPolicy, RateLimiter
from glm3.application.serving.lifecycle import Lifecycle, Phase
from glm3.domain.errors import (
    AccessDeniedError,
    ConfigError,
    MissingFileError,
    OverloadedError,
    StorageError,
    UnavailableError,
    UsageError,
)
from glm3.entrypoints.serving.address import Address, bind
from glm3.entrypoints.serving.tokens import read_tokens

GOOD, OTHER = "a" * 16, "b" * 16


def test_callers_are_known_by_their_tokens():
    policy = AccessPolicy({"ann": GOOD, "bob": OTHER})
    assert not policy.anonymous
    assert policy.identify(GOOD, "1.2.3.4") == "ann"
    assert policy.identify(OTHER, "1.2.3.4") == "bob"
    for wrong in (None, "", GOOD[:-1], GOOD + "a", "é" * 16, "\udcff"):
        with pytest.raises(AccessDeniedError):
            policy.identify(wrong, "1.2.3.4")


def test_without_tokens_callers_are_known_by_where_they_are():
    assert AccessPolicy().identify("whatever", "1.2.3.4") == "1.2.3.4"


def test_requests_are_counted_by_client_and_come_back_with_time():
    now = 0.0
    limiter = RateLimiter(per_minute=3, clock=lambda: now)
    for _ in range(3):
        limiter.take("ann")
    with pytest.raises(OverloadedError) as caught:
        limiter.take("ann")
    assert caught.value.retry_after == pytest.approx(20)
    limiter.take("bob")
    now = 20.0
    limiter.take("ann")
    with pytest.raises(OverloadedError):
        limiter.take("ann")


def test_tokens_come_from_a_file_and_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM3_TOKEN", "c" * 20)
    path = tmp_path / "tokens"
    path.write_text(f"# who\n\nann: {GOOD}\nbob:{OTHER}\n")
    assert read_tokens(path) == {"default": "c" * 20, "ann": GOOD, "bob": OTHER}
    monkeypatch.delenv("GLM3_TOKEN")
    assert read_tokens(None) == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("just-a-token-without-name", 1),
        (f"ann: {GOOD}\nann: {OTHER}", 2),
        ("ann: short", 1),
        ("ann: with a space in it", 1),
    ],
)
def test_a_bad_file_of_tokens_is_refused_without_showing_any(tmp_path, monkeypatch, text, line):
    monkeypatch.delenv("GLM3_TOKEN", raising=False)
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_tokens(path)
    assert caught.value.line == line
    assert GOOD not in str(caught.value)
    with pytest.raises(MissingFileError):
        read_tokens(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:8000", Address("127.0.0.1", 8000), True),
        ("8000", Address("127.0.0.1", 8000), True),
        ("localhost:1", Address("localhost", 1), True),
        ("[::1]:80", Address("::1", 80), True),
        ("0.0.0.0:80", Address("0.0.0.0", 80), False),
        ("[::]:80", Address("::", 80), False),
        ("example.org:80", Address("example.org", 80), False),
    ],
)
def test_addresses(text, address, loopback):
    assert Address.parse(text, "--http") == address
    assert address.is_loopback is loopback
    assert Address.parse(str(address), "--http") == address


@pytest.mark.parametrize("text", ["", "host", "host:", "1.2.3.4:99999", "::1:80", "a:b:1"])
def test_what_is_no_address(text):
    with pytest.raises(UsageError, match="--http"):
        Address.parse(text, "--http")


def test_a_port_that_is_taken_is_a_clear_error():
    with bind(Address("127.0.0.1", 0)) as taken, pytest.raises(StorageError, match="in use"):
        bind(Address("127.0.0.1", taken.getsockname()[1]))


def test_a_service_can_be_asked_between_loading_and_draining():
    lifecycle = Lifecycle()
    with pytest.raises(UnavailableError, match="loading"):
        lifecycle.service()
    service = object()
    lifecycle.ready(service)
    assert lifecycle.service() is service
    lifecycle.drain()
    with pytest.raises(UnavailableError, match="stop"):
        lifecycle.service()
    assert lifecycle.loaded() is service
    early = Lifecycle()
    early.drain()
    early.ready(service)
    assert early.phase is Phase.DRAINING

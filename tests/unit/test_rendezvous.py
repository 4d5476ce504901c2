"""Ranks that meet before a collective: who is missing is named, and nobody else may join."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from glm3.adapters.mindspore.rendezvous import Hub, Rendezvous
from glm3.domain.errors import CommunicationError

SECRET = "sesame"
ALL = range(3)


@pytest.fixture
def hub():
    made = Hub("127.0.0.1", SECRET)
    yield made
    made._server.close()


@pytest.fixture
def ranks(hub):
    made = [Rendezvous(("127.0.0.1", hub.port), SECRET, rank, timeout=0.3) for rank in ALL]
    yield made
    for rank in made:
        rank.close()
    hub.wait_until_left()


def together(calls):
    """Run each call in a thread; return results, or the errors in their place."""

    def attempt(call):
        try:
            return call()
        except CommunicationError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(attempt, calls))


def test_everyone_learns_what_everyone_brought(ranks):
    for turn in range(20):
        said = together([lambda r=r, t=turn: ranks[r].meet("g", ALL, "gather", [r, t]) for r in ALL])
        assert said == [[[0, turn], [1, turn], [2, turn]]] * 3


def test_groups_meet_beside_each_other(ranks):
    said = together(
        [
            lambda: ranks[0].meet("a", [0, 2], "sum", "x"),
            lambda: ranks[2].meet("a", [0, 2], "sum", "y"),
            lambda: ranks[1].meet("b", [1], "sum", "z"),
        ]
    )
    assert said == [["x", "y"], ["x", "y"], ["z"]]


def test_a_late_rank_is_named_and_told_that_the_others_gave_up(ranks):
    first = together([lambda r=r: ranks[r].meet("g", ALL, "barrier") for r in (0, 1)])
    assert [error.missing for error in first] == [(2,), (2,)]
    with pytest.raises(CommunicationError, match="gave up waiting for rank 2") as caught:
        ranks[2].meet("g", ALL, "barrier")
    assert set(caught.value.missing) == {0, 1}


@pytest.mark.parametrize("before", [True, False])
def test_a_rank_that_ends_is_named_at_once(hub, before):
    """Whether it has ended before the others come or while they wait."""
    made = [Rendezvous(("127.0.0.1", hub.port), SECRET, rank, timeout=20) for rank in ALL]
    calls = [lambda r=r: made[r].meet("g", ALL, "barrier") for r in (0, 1)]
    if before:
        made[2].close()
        found = together(calls)
    else:
        found = together([*calls, made[2].close])[:2]
    assert [error.missing for error in found] == [(2,), (2,)]
    assert made[0].gone() == [2]
    for rank in made[:2]:
        rank.close()


def test_different_calls_are_told_to_everyone(ranks):
    found = together([lambda r=r: ranks[r].meet("g", ALL, "sum" if r else "barrier") for r in ALL])
    for error in found:
        assert error.found == "rank 0: barrier, rank 1: sum, rank 2: sum"


@pytest.mark.parametrize(
    "line", [b'{"secret": "guess", "rank": 0}\n', b"GET / HTTP/1.1\r\n\r\n", b"[1, 2]\n", b"{}\n"]
)
def test_strangers_are_hung_up_on(hub, ranks, line):
    with socket.create_connection(("127.0.0.1", hub.port), 5) as stranger:
        stranger.sendall(line)
        assert stranger.recv(100) == b""
    assert together([lambda r=r: ranks[r].meet("g", ALL, "sum", r) for r in ALL]) == [[0, 1, 2]] * 3


def test_a_damaged_message_costs_its_rank_alone(hub, ranks):
    """And the others are told that it is gone."""
    with socket.create_connection(("127.0.0.1", hub.port), 5) as fourth:
        fourth.sendall(json.dumps({"secret": SECRET, "rank": 3}).encode() + b"\n{not json\n")
        assert fourth.recv(100) == b""
    with pytest.raises(CommunicationError) as caught:
        ranks[0].meet("h", [0, 3], "sum")
    assert caught.value.missing == (3,)


def test_rank_zero_has_a_name_too():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(CommunicationError, match="rank 0 cannot be reached") as caught:
        Rendezvous(("127.0.0.1", port), SECRET, 1, timeout=1)
    assert caught.value.missing == (0,)

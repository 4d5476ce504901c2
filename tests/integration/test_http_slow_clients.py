"""Clients that say nothing, or too little: they cost nobody else anything, and are let go."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from starlette.responses import PlainTextResponse

from glm3.entrypoints.http.server import HttpServer
from glm3.entrypoints.http.settings import HttpSettings
from glm3.entrypoints.serving.address import Address, bind
from glm3.entrypoints.serving.open_files import allow_open_files
from support.serving import replies_model, serving

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hello"}]}
IDLE = 1000
WAIT = 30  # seconds after which a test has failed


@contextmanager
def impatient(idle_seconds: int) -> Iterator[Address]:
    """Run a server that waits for a request no longer than this."""
    server = HttpServer(PlainTextResponse("hello"), bind(Address("127.0.0.1", 0)), idle_seconds=idle_seconds)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        yield server.address
    finally:
        server.stop()
        thread.join(timeout=WAIT)
        assert not thread.is_alive()


def connected(address: Address | httpx.URL) -> socket.socket:
    return socket.create_connection((address.host, address.port), timeout=WAIT)


def received(client: socket.socket, end: bytes) -> bytes:
    """Return what comes, up to ``end``."""
    answer = b""
    while not answer.endswith(end):
        part = client.recv(1000)
        assert part, answer
        answer += part
    return answer


@pytest.mark.skipif(
    allow_open_files() < 2 * IDLE + 200, reason="both ends of the connections are files of this process"
)
def test_a_thousand_idle_connections_disturb_nobody() -> None:
    text = "some answer that is streamed"
    with ExitStack() as idle, serving(replies_model(text)) as served:
        with httpx.stream("POST", served.url + CHAT, json={**BODY, "stream": True}, timeout=WAIT) as response:
            lines = response.iter_lines()
            first = next(lines)
            for _ in range(IDLE):
                idle.enter_context(connected(httpx.URL(served.url)))
            assert httpx.post(served.url + CHAT, json=BODY, timeout=WAIT).status_code == 200
            events = [line[6:] for line in [first, *lines] if line.startswith("data: {")]
            deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
            assert "".join(delta.get("content") or "" for delta in deltas) == text
        assert httpx.get(served.url + "/ready", timeout=WAIT).status_code == 200


@pytest.mark.parametrize("begun", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_request_that_does_not_come_is_not_waited_for(begun: bytes) -> None:
    with impatient(1) as address, connected(address) as client:
        client.sendall(begun)
        assert client.recv(1) == b""


def test_a_head_that_comes_in_drops_has_no_more_time() -> None:
    """Each drop counts as activity for others; a client could hold a connection for good with them."""
    with impatient(1) as address, connected(address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        client.settimeout(0.2)
        assert any(is_closed_after(client, b"X: y\r\n") for _ in range(5 * WAIT))


def is_closed_after(client: socket.socket, drop: bytes) -> bool:
    """Send a little and tell whether the server has hung up."""
    try:
        client.sendall(drop)
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_connection_is_kept_between_requests_and_takes_a_head_in_pieces() -> None:
    with impatient(WAIT) as address, connected(address) as client:
        for _ in range(2):
            for piece in (b"GET / HT", b"TP/1.1\r\nHost: local", b"host\r\n\r\n"):
                client.sendall(piece)
            assert received(client, b"hello").startswith(b"HTTP/1.1 200")


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    settings = HttpSettings(body_seconds=0.2)
    with serving(replies_model("x"), settings=settings) as served, connected(httpx.URL(served.url)) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 1000\r\n\r\n{"messages":'
        )
        answer = received(client, b"}}")
        assert answer.startswith(b"HTTP/1.1 408")
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert error["message"] == "the body did not come within 0.2 s"
        assert httpx.post(served.url + CHAT, json=BODY, timeout=WAIT).status_code == 200


def test_a_server_may_hold_as_many_connections_as_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 512), before[1]))
    try:
        assert allow_open_files(1000) == min(1000, before[1])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(1000, before[1]), before[1])
        assert allow_open_files(600) == min(1000, before[1]), "it never lowers the limit"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

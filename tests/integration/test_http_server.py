"""The HTTP server among bad input, clients that leave, and crowds."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.responses import PlainTextResponse

from glm3.adapters.memory.scripted_model import ScriptedModel, hashed_scores
from glm3.application.serving.access import AccessPolicy
from glm3.domain.conversation import Message, Role
from glm3.domain.decoding import generate
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.generation import GenerationConfig
from glm3.domain.prompt import PromptBuilder
from glm3.domain.reply_stream import ReplyStream
from glm3.domain.tool_call import format_tool_call
from glm3.entrypoints.http.server import HttpServer
from glm3.entrypoints.http.settings import HttpSettings
from glm3.entrypoints.serving.address import Address, bind
from support.serving import TOKENIZER, PacedModel, Served, metric, replies_model, serving, within

USER = {"role": "user", "content": "hello"}
CHAT = "/v1/chat/completions"
SIZE = TOKENIZER.special_tokens.vocab_size


@pytest.fixture(scope="module")
def plain() -> Iterator[Served]:
    """A server that answers anything with x."""
    with serving(replies_model("x")) as served:
        yield served


def endless(**changes: Any) -> dict[str, Any]:
    return {"messages": [USER], "max_tokens": 3000, "min_tokens": 3000, "temperature": 0, **changes}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"\xff\xfe", {}, 400),
        (b'{"messages": NaN}', {}, 400),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', {}, 400),
        (b"[" * 200_000, {}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": ""}, 415),
        (b"a" * (5 * 2**20), {}, 413),
    ],
)
def test_bad_bodies_are_the_clients_fault(plain, body, headers, status):
    response = httpx.post(
        plain.url + CHAT, content=body, headers={"Content-Type": "application/json", **headers}
    )
    assert response.status_code == status
    assert set(response.json()["error"]) >= {"message", "type", "param", "code"}
    assert httpx.post(plain.url + CHAT, json={"messages": [USER]}).status_code == 200


def test_a_prompt_of_ten_megabytes_is_refused_and_disturbs_nobody():
    settings = HttpSettings(body_bytes=16 * 2**20)
    with serving(PacedModel(), settings=settings) as served:
        running = threading.Thread(
            target=httpx.post,
            args=(served.url + CHAT,),
            kwargs={"json": endless(max_tokens=300, min_tokens=300), "timeout": 60},
        )
        running.start()
        huge = {"messages": [{"role": "user", "content": "你" * (10 * 2**20 // 3)}]}
        response = httpx.post(served.url + CHAT, json=huge, timeout=60)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")
        running.join(timeout=60)
        assert metric(served.metrics, "glm3_requests_total", outcome="length") == 1


def test_a_body_that_is_larger_than_it_says_is_cut_off(plain):
    def chunks():
        for _ in range(100):
            yield b" " * 2**17

    headers = {"Content-Type": "application/json"}
    assert httpx.post(plain.url + CHAT, content=chunks(), headers=headers).status_code == 413


@pytest.mark.parametrize(("method", "path", "status"), [("GET", CHAT, 405), ("GET", "/v2/chat", 404)])
def test_routes_that_are_none_answer_in_the_same_shape(plain, method, path, status):
    response = httpx.request(method, plain.url + path)
    assert response.status_code == status
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_that_goes_away_cancels_its_request(streamed):
    with serving(PacedModel()) as served:
        if streamed:
            with httpx.stream("POST", served.url + CHAT, json=endless(stream=True), timeout=30) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(served.url + CHAT, json=endless(), timeout=1)
        assert within(30, lambda: metric(served.metrics, "glm3_requests_total", outcome="cancelled") == 1)
        assert served.engine.stats().running == 0


def test_a_client_that_leaves_while_it_waits_leaves_the_queue():
    limits = EngineLimits(slots=1, slot_tokens=4096)
    with (
        serving(PacedModel(), engine=limits) as served,
        httpx.stream("POST", served.url + CHAT, json=endless(stream=True), timeout=30) as running,
    ):
        lines = running.iter_lines()  # kept: an iterator that is let go of closes its connection
        next(lines)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(served.url + CHAT, json=endless(), timeout=1)
        assert within(30, lambda: metric(served.metrics, "glm3_requests_total", outcome="cancelled") == 1)
        assert served.engine.stats().waiting == 0
        assert served.engine.stats().running == 1
        assert next(line for line in lines if line)


def test_a_reader_that_does_not_read_costs_nobody_else_anything_and_is_given_up():
    settings = HttpSettings(send_seconds=0.5)
    with serving(PacedModel(), settings=settings) as served:
        body = json.dumps(endless(stream=True, n=4, logprobs=True, top_logprobs=20)).encode()
        address = urlsplit(served.url)
        with socket.create_connection((address.hostname, address.port)) as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            lazy.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert within(30, lambda: served.engine.stats().running > 0)
            other = httpx.post(served.url + CHAT, json={"messages": [USER], "max_tokens": 20}, timeout=60)
            assert other.status_code == 200
            assert within(60, lambda: served.engine.stats().running == 0)
        assert metric(served.metrics, "glm3_requests_total", outcome="cancelled") >= 1


def test_thirty_two_streams_at_once_are_not_mixed():
    """Each answer is that of its prompt alone, though all of them are computed together."""
    builder = PromptBuilder(TOKENIZER)
    lone = ScriptedModel(hashed_scores(SIZE), SIZE, seq_length=4096)
    options = GenerationConfig(max_new_tokens=40, min_new_tokens=40)
    answers: dict[int, list[dict[str, Any]]] = {}

    with serving(PacedModel(), engine=EngineLimits(slots=12, slot_tokens=512)) as served:

        def ask(number: int) -> None:
            body = endless(
                messages=[{"role": "user", "content": f"number {number} " * (number % 5 + 1)}],
                max_tokens=40,
                min_tokens=40,
                stream=True,
                logprobs=True,
            )
            with httpx.stream("POST", served.url + CHAT, json=body, timeout=60) as response:
                lines = [line for line in response.iter_lines() if line.startswith("data: {")]
            answers[number] = [json.loads(line[6:]) for line in lines]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    assert len({chunks[0]["id"] for chunks in answers.values()}) == 32
    for number, chunks in answers.items():
        prompt = builder.build([Message(Role.USER, f"number {number} " * (number % 5 + 1))])
        ids = generate(lone, [prompt], options.for_vocabulary(TOKENIZER.special_tokens))[0].new_ids
        reply = ReplyStream(TOKENIZER)
        expected = "".join(map(reply.push, ids)) + reply.finish()
        text = "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])
        assert text == expected, number
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_connections_on_which_nobody_asks_are_closed():
    listener = bind(Address("127.0.0.1", 0))
    server = HttpServer(PlainTextResponse("hello"), listener, idle_seconds=1)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        with socket.create_connection((server.address.host, server.address.port), timeout=10) as idle:
            assert httpx.get(server.url).text == "hello"
            assert idle.recv(1) == b""
    finally:
        server.stop()
        thread.join(timeout=10)


def test_the_services_phases_show():
    with serving(replies_model("x")) as served:
        assert httpx.get(served.url + "/health").json() == {"status": "ok"}
        assert httpx.get(served.url + "/ready").status_code == 200
        served.lifecycle.drain()
        assert httpx.get(served.url + "/ready").status_code == 503
        assert httpx.get(served.url + "/health").status_code == 200
        refused = httpx.post(served.url + CHAT, json={"messages": [USER]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert "Retry-After" in refused.headers


def test_metrics_count_what_happens():
    with serving(replies_model("some answer")) as served:
        httpx.post(served.url + CHAT, json={"messages": [USER]})
        httpx.post(served.url + CHAT, json={"messages": []})
        page = httpx.get(served.url + "/metrics")
        assert page.headers["content-type"].startswith("text/plain")
        assert metric(served.metrics, "glm3_requests_total", outcome="stop") == 1
        assert metric(served.metrics, "glm3_http_requests_total", route=CHAT, status="400") == 1
        assert metric(served.metrics, "glm3_time_to_first_token_seconds_count") == 1
        assert metric(served.metrics, "glm3_generated_tokens_total") == len("\nsome answer") + 1
        assert metric(served.metrics, "glm3_kv_capacity") == 4 * 4096
        assert metric(served.metrics, "glm3_kv_tokens") > 0
        assert metric(served.metrics, "glm3_running_requests") == 0


def test_ids_of_requests_go_through(plain):
    given = httpx.get(plain.url + "/health", headers={"X-Request-Id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    forged = httpx.get(plain.url + "/health", headers={"X-Request-Id": "a b\t{}"})
    assert forged.headers["x-request-id"] != "a b\t{}"
    assert len(forged.headers["x-request-id"]) == 32


def test_pages_of_other_origins_and_names_are_kept_out():
    with serving(replies_model("x")) as served:
        foreign = httpx.post(
            served.url + CHAT, json={"messages": [USER]}, headers={"Origin": "https://elsewhere.example"}
        )
        assert "access-control-allow-origin" not in foreign.headers
        renamed = httpx.get(served.url + "/health", headers={"Host": "evil.example"})
        assert renamed.status_code == 421
    settings = HttpSettings(cors_origins=("https://mine.example",), loopback_only=False)
    with serving(replies_model("x"), settings=settings) as served:
        for origin, allowed in (("https://mine.example", True), ("https://other.example", False)):
            answer = httpx.get(served.url + "/health", headers={"Origin": origin})
            assert ("access-control-allow-origin" in answer.headers) is allowed


def test_only_health_and_readiness_are_told_to_everybody():
    with serving(replies_model("x"), access=AccessPolicy({"ann": "a" * 16})) as served:
        for path, status in (("/health", 200), ("/ready", 200), ("/metrics", 401), ("/v1/models", 401)):
            assert httpx.get(served.url + path).status_code == status
        headers = {"Authorization": "Bearer " + "a" * 16}
        assert httpx.get(served.url + "/metrics", headers=headers).status_code == 200


def test_text_and_dialogues_are_counted(plain):
    tokens = httpx.post(plain.url + "/tokenize", json={"text": "a 你"}).json()
    assert tokens["tokens"] == TOKENIZER.encode("a 你")
    assert tokens["count"] == len(tokens["pieces"]) == 5
    body = {"messages": [USER]}
    count = httpx.post(plain.url + "/tokenize", json=body).json()["count"]
    usage = httpx.post(plain.url + CHAT, json=body).json()["usage"]
    assert count == usage["prompt_tokens"]
    assert httpx.post(plain.url + "/tokenize", json={}).json()["error"]["param"] == "text"


def test_the_official_servers_form_of_calls():
    """``functions`` in, ``function_call`` out, as clients of ChatGLM3's own server have it."""
    model = replies_model(format_tool_call("clock", {"zone": "x"}), "noon")
    with serving(model) as served:
        functions = [{"name": "clock", "description": "d", "parameters": {"type": "object"}}]
        body: dict[str, Any] = {"messages": [USER], "functions": functions, "temperature": 0}
        choice = httpx.post(served.url + CHAT, json=body).json()["choices"][0]
        assert choice["finish_reason"] == "function_call"
        assert json.loads(choice["message"]["function_call"]["arguments"]) == {"zone": "x"}
        body["messages"] += [choice["message"], {"role": "function", "name": "clock", "content": "12:00"}]
        assert httpx.post(served.url + CHAT, json=body).json()["choices"][0]["message"]["content"] == "noon"


def test_nothing_of_a_prompt_is_in_the_log_unless_asked(caplog, capsys):
    with caplog.at_level(logging.DEBUG):
        for wanted in (False, True):
            caplog.clear()
            capsys.readouterr()
            with serving(replies_model("the answer"), settings=HttpSettings(log_content=wanted)) as served:
                body = {"messages": [{"role": "user", "content": "the question"}]}
                httpx.post(served.url + CHAT, json=body)
                httpx.post(served.url + CHAT, json={**body, "stream": True})
                httpx.post(served.url + CHAT, json={**body, "n": -1})
            logged = caplog.text + capsys.readouterr().out
            assert "request" in logged
            assert ("question" in logged) is wanted
            said = "".join(
                re.findall(r"TextDelta\(choice=0, text='([^']*)'", logged)
            )  # in pieces of any size
            assert ("the answer" in said) is wanted

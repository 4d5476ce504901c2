"""What the Ray application is made of, without Ray: names of conversations, settings, requests as records."""

from __future__ import annotations

import asyncio
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from glm3.domain.errors import ConfigError, MultipleFaultsError
from glm3.entrypoints.ray.asgi_call import HttpCall, answer
from glm3.entrypoints.ray.conversation import conversation_key
from glm3.entrypoints.ray.settings import RaySettings

WAIT = 30
TURNS = st.lists(st.fixed_dictionaries({"role": st.just("assistant"), "content": st.text()}), max_size=3)


def key(*messages: dict[str, Any], headers: dict[str, str] | None = None, **more: Any) -> str:
    return conversation_key(headers or {}, json.dumps({"messages": messages, **more}).encode())


def says(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


@given(st.text(), st.text(), TURNS, st.integers(0, 5))
def test_all_turns_of_a_dialogue_have_one_name(
    system: str, question: str, turns: list[dict[str, Any]], seed: int
) -> None:
    beginning = [says("system", system), says("user", question)]
    name = key(*beginning)
    assert name
    assert key(*beginning, *turns, says("user", "go on"), seed=seed, stream=True) == name


def test_other_dialogues_have_other_names() -> None:
    names = [
        key(says("user", "a")),
        key(says("user", "b")),
        key(says("system", "s"), says("user", "a")),
        key(says("user", "a"), tools=[{"name": "clock"}]),
        key(says("user", [{"type": "text", "text": "a"}])),
        key(says("user", "a"), prompt_cache_key="mine"),
        key(says("user", "a"), headers={"x-session-id": "mine"}),
        conversation_key({}, b'{"prompt": "a"}'),
        conversation_key({}, b'{"prompt": [1, 2]}'),
    ]
    assert len(set(names)) == len(names)


def test_what_the_client_calls_its_conversation_counts_most() -> None:
    named = {"x-session-id": "mine"}
    assert key(says("user", "a"), headers=named) == key(
        says("user", "b"), headers=named, prompt_cache_key="c"
    )
    assert key(says("user", "a"), prompt_cache_key="c") == key(says("user", "b"), prompt_cache_key="c")


@given(
    st.binary(max_size=30)
    | st.sampled_from([b"[" * 10**5, b'{"messages": 1}', b'{"messages": [1]}', b"null"])
)
def test_any_body_has_a_name_or_none(body: bytes) -> None:
    assert len(conversation_key({}, body)) in (0, 32)


def test_settings_come_as_text_or_numbers() -> None:
    made = RaySettings.read(
        {"min_replicas": "2", "max_replicas": 4, "target_requests": "3.5", "quant": "int4"}
    )
    assert (made.min_replicas, made.max_replicas, made.target_requests, made.quant) == (2, 4, 3.5, "int4")
    assert RaySettings.read({}) == RaySettings()


def test_all_faults_of_settings_are_named() -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        RaySettings.read({"slots": 0, "queue": "many", "replicas": 2})
    assert {fault.field for fault in caught.value.faults} == {"slots", "queue", "replicas"}
    with pytest.raises(ConfigError, match="max_replicas: fewer than the least"):
        RaySettings.read({"min_replicas": 3, "max_replicas": 2})


def call(body: bytes = b"{}") -> HttpCall:
    headers = ((b"content-type", b"application/json"), (b"host", b"localhost"))
    return HttpCall("POST", "/a b", b"x=1", headers, ("127.0.0.1", 1), body)


def test_an_application_sees_the_request_and_its_answer_comes_in_messages() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        seen = [request.method, request.url.path, request.query_params["x"], request.headers["host"]]
        await JSONResponse([*seen, await request.json()], 201)(scope, receive, send)

    async def collect() -> list[Message]:
        return [message async for message in answer(app, pickle.loads(pickle.dumps(call(b'{"a": 1}'))))]

    start, body = asyncio.run(collect())
    assert start["status"] == 201
    assert json.loads(body["body"]) == ["POST", "/a b", "1", "localhost", {"a": 1}]


def test_closing_tells_the_application_that_the_client_is_gone() -> None:
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):  # more than fits where nobody reads
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        ended.append((await receive())["type"])

    async def leave() -> None:
        messages = answer(app, call())
        assert (await anext(messages))["type"] == "http.response.start"
        await messages.aclose()  # type: ignore[attr-defined]

    asyncio.run(asyncio.wait_for(leave(), WAIT))
    assert ended == ["http.disconnect"]


def test_an_application_that_fails_fails_the_call() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no luck")

    async def collect() -> None:
        async for _ in answer(app, call()):
            raise AssertionError("there is no message")

    with pytest.raises(LookupError, match="no luck"):
        asyncio.run(asyncio.wait_for(collect(), WAIT))

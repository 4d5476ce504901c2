"""The HTTP server asked with whatever its own description allows, and with that damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm3.domain.engine.limits import EngineLimits
from glm3.entrypoints.http.openapi import document
from support.json_schema import JSON, damaged, matches, values_of
from support.serving import Served, replies_model, serving

DOCUMENT = document()
SCHEMAS = DOCUMENT["components"]["schemas"]
BODIES = {
    path: item["post"]["requestBody"]["content"]["application/json"]["schema"]
    for path, item in DOCUMENT["paths"].items()
    if "post" in item
}
ALLOWED = {path: values_of(schema, SCHEMAS) for path, schema in BODIES.items()}
REQUESTS = {path: allowed | allowed.flatmap(damaged) for path, allowed in ALLOWED.items()}
FUZZ = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A server with room for short prompts and answers, whatever is asked of it."""
    with serving(replies_model("x"), engine=EngineLimits(slots=2, slot_tokens=96)) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as opened:
        yield opened
        assert opened.get("/ready").status_code == 200, "it serves on after all of this"


def judge(path: str, response: httpx.Response) -> None:
    """Check that a response is one that the description promises."""
    promised = DOCUMENT["paths"][path]["post"]["responses"]
    assert response.status_code == 200 or 400 <= response.status_code < 500, response.text
    assert str(response.status_code) in promised
    if response.headers["content-type"].startswith("text/event-stream"):
        events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        values, schema = list(map(json.loads, events[:-1])), chunk_schema(path)
    else:
        values = [response.json()]
        schema = promised[str(response.status_code)]["content"]["application/json"]["schema"]
    for value in values:
        assert matches(value, schema, SCHEMAS), value


def chunk_schema(path: str) -> dict[str, Any]:
    return {"$ref": "ChatChunk" if path.endswith("chat/completions") else "Completion"}


@pytest.mark.parametrize("path", sorted(BODIES))
@given(data=st.data())
@FUZZ
def test_no_request_gets_anything_but_an_answer_or_its_fault(
    client: httpx.Client, path: str, data: st.DataObject
) -> None:
    body = data.draw(REQUESTS[path])
    content = json.dumps(body).encode()
    judge(path, client.post(path, content=content, headers={"Content-Type": "application/json"}))


@given(data=st.data(), path=st.sampled_from(sorted(BODIES)))
@FUZZ
def test_no_bytes_get_anything_but_an_answer_or_a_fault(
    client: httpx.Client, path: str, data: st.DataObject
) -> None:
    text = json.dumps(data.draw(ALLOWED[path] | JSON)).encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    content = text[:start] + data.draw(st.binary(max_size=8)) + text[end:]
    kind = data.draw(
        st.sampled_from(["application/json", "application/json; charset=utf-16", "text/plain", ""])
    )
    judge(path, client.post(path, content=content, headers={"Content-Type": kind}))


def test_the_fields_described_are_those_that_are_read(client: httpx.Client) -> None:
    """A described field is known, with the same name; one that is not described is not."""
    for path, name in (("/v1/chat/completions", "ChatRequest"), ("/v1/completions", "CompletionRequest")):
        described = SCHEMAS[name]["properties"].keys()
        asked = {field: {"nothing": "that is read"} for field in (*described, "unheard_of")}
        error = client.post(path, json=asked).json()["error"]
        unknown = [fault["param"] for fault in error["faults"] if "unknown field" in fault["message"]]
        assert [param for param in unknown if "." not in param] == ["unheard_of"]


@pytest.mark.parametrize(
    ("path", "least"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/completions", {"prompt": "a"}),
        ("/tokenize", {"text": "a"}),
    ],
)
def test_the_least_request_and_one_with_nulls_are_answered(
    client: httpx.Client, path: str, least: dict[str, Any]
) -> None:
    schema = BODIES[path]
    while "$ref" in schema or "anyOf" in schema:
        schema = SCHEMAS[schema["$ref"][21:]] if "$ref" in schema else schema["anyOf"][0]
    for body in (least, {**dict.fromkeys(schema["properties"]), **least}):
        assert matches(body, schema, SCHEMAS)
        response = client.post(path, json=body)
        assert response.status_code == 200, response.text
        judge(path, response)


def test_the_description_names_every_route_and_is_served(client: httpx.Client, served: Served) -> None:
    assert client.get("/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
    for path in DOCUMENT["paths"]:
        method = "POST" if path in BODIES else "GET"
        response = client.request(method, path.replace("{name}", "scripted"))
        assert response.status_code == (415 if method == "POST" else 200), path
        if method == "GET" and path != "/metrics":
            promised = DOCUMENT["paths"][path]["get"]["responses"]["200"]
            assert matches(response.json(), promised["content"]["application/json"]["schema"], SCHEMAS)

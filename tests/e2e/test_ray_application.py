"""Two replicas on a local Ray: turns of one conversation meet the same KV cache, and answers are right."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from glm3.application.chat import ChatSession
from glm3.domain.generation import GenerationConfig
from glm3.entrypoints.container import build_container

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="glm3[ray] is not installed"),
    pytest.mark.filterwarnings("ignore"),
]

CHAT = "/v1/chat/completions"
QUESTIONS = ["你好", "你是谁？", "类型#裙*颜色#红色", "类型#裤*风格#简约", "谢谢", "再见"]
TOKENS = 24
WAIT = 120


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def folder() -> Iterator[str]:
    """A short path: Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture(scope="module")
def url(patch: pytest.MonkeyPatch, folder: str) -> Iterator[str]:
    """The address of an application with two replicas of the embedded model, on the numpy backend."""
    import ray
    from ray import serve

    from glm3.entrypoints.ray.app import build

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    patch.setenv("RAY_AUTH_MODE", "disabled")  # it would leave a token in the user's home
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    environment = {"env_vars": {"GLM3_BACKEND": "numpy", "GLM3_OFFLINE": "1"}}
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        runtime_env=environment,
        log_to_driver=False,
        _temp_dir=folder,
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(build({"min_replicas": "2", "max_replicas": "2", "slots": 4}))
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def ask(url: str, messages: list[dict[str, Any]], **more: Any) -> httpx.Response:
    body = {"messages": messages, "max_tokens": TOKENS, "temperature": 0, **more}
    return httpx.post(url + CHAT, json=body, timeout=WAIT)


def test_turns_go_to_the_replica_that_knows_their_beginning(url: str) -> None:
    container = build_container(offline=True, backend="numpy")
    tiny = container.models().load("tiny")
    options = GenerationConfig(max_new_tokens=TOKENS)
    dialogues: dict[str, list[dict[str, Any]]] = {question: [] for question in QUESTIONS}
    alone = {question: ChatSession(tiny.model, tiny.tokenizer, options=options) for question in QUESTIONS}
    replicas: dict[str, set[str]] = {question: set() for question in QUESTIONS}
    for turn in range(3):
        for question, messages in dialogues.items():
            text = question if turn == 0 else "再说一遍"
            messages.append({"role": "user", "content": text})
            response = ask(url, messages)
            assert response.status_code == 200, response.text
            answer = response.json()
            replicas[question].add(response.headers["x-glm3-replica"])
            content = answer["choices"][0]["message"]["content"]
            assert content == alone[question].send(text).text
            messages.append({"role": "assistant", "content": content})
            if turn:
                assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert all(len(each) == 1 for each in replicas.values()), replicas
    assert len(set.union(*replicas.values())) == 2, "both replicas are used"


def test_streams_and_errors_come_through(url: str) -> None:
    body = {"messages": [{"role": "user", "content": "你好"}], "temperature": 0, "stream": True}
    with httpx.stream("POST", url + CHAT, json=body, timeout=WAIT) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
    assert len(deltas) > 3
    whole = ask(url, body["messages"], max_tokens=None).json()["choices"][0]["message"]["content"]  # type: ignore[arg-type]
    assert "".join(deltas) == whole
    refused = ask(url, [], nonsense=1)
    assert refused.status_code == 400
    assert {fault["param"] for fault in refused.json()["error"]["faults"]} == {"messages", "nonsense"}
    assert httpx.get(url + "/ready", timeout=WAIT).json() == {"status": "ready"}
    assert httpx.get(url + "/nowhere", timeout=WAIT).status_code == 404


def test_clients_that_leave_cancel_their_answers(url: str) -> None:
    """More of them than there are slots; what they asked for would take long, and ends at once."""
    before = sum(cancelled(url).values())
    messages = [{"role": "user", "content": "写一句话"}]
    body = {"messages": messages, "stream": True, "max_tokens": 450, "min_tokens": 450}
    for number in range(10):
        named = {"X-Session-Id": f"leaves {number}"}
        with httpx.stream("POST", url + CHAT, json=body, headers=named, timeout=WAIT) as response:
            lines = response.iter_lines()
            assert next(lines)
    end = time.monotonic() + WAIT
    while sum(cancelled(url).values()) < before + 10:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert ask(url, [{"role": "user", "content": "你好"}]).status_code == 200


def cancelled(url: str) -> dict[str, float]:
    """Return how many answers each replica has cancelled; each answers for itself."""
    counts: dict[str, float] = {}
    for number in range(100):
        page = httpx.get(url + "/metrics", headers={"X-Session-Id": f"{number}"}, timeout=WAIT)
        found = re.search(r'^glm3_requests_total\{outcome="cancelled"\} (\S+)', page.text, re.MULTILINE)
        counts[page.headers["x-glm3-replica"]] = float(found[1]) if found else 0.0
        if len(counts) == 2:
            return counts
    raise AssertionError("one replica has answered a hundred requests")

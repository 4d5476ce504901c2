"""``glm3 serve`` as a process: the embedded model, the real openai client, signals."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from support.cli import glm3
from support.serve_process import ServeProcess, serve_process

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "查询天气",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
QUESTIONS = ["你好", "你是谁？", "类型#裙*颜色#红色", "北京天气怎么样？", "hello", "再见"]


@pytest.fixture(scope="module")
def server() -> Iterator[ServeProcess]:
    with serve_process("--log-level", "debug", "--log-format", "json") as running:
        yield running


def client_of(server: ServeProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


def ask(client: openai.OpenAI, text: str, **changes: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(
        model="tiny", messages=messages, temperature=0, **{"max_tokens": 40, **changes}
    )


def test_answers_do_not_depend_on_how_many_ask(server):
    """Every question alone, then all of them five times at once, streamed."""
    with client_of(server) as client:
        alone = {text: ask(client, text).choices[0].message.content for text in QUESTIONS}
        assert len(set(alone.values())) > 3
        together: list[tuple[str, str]] = []

        def stream(text: str) -> None:
            chunks = ask(client, text, stream=True)
            said = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
            together.append((text, said))

        threads = [threading.Thread(target=stream, args=(text,)) for text in QUESTIONS * 5]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    assert sorted(together) == sorted([*alone.items()] * 5)


def test_the_embedded_model_calls_a_tool(server):
    with client_of(server) as client:
        choice = ask(client, "北京今天天气怎么样？", tools=[TOOL]).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "北京"}


def test_every_log_line_of_a_request_has_its_id_and_none_its_text(server):
    response = httpx.post(
        server.url + "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "a very private question"}], "max_tokens": 5},
        headers={"X-Request-Id": "my-own-id"},
        timeout=60,
    )
    assert response.headers["x-request-id"] == "my-own-id"
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    own = [line["event"] for line in lines if line.get("request_id") == "my-own-id"]
    assert own == ["answered", "request"]
    assert "private" not in server.log


def test_look_up_takes_fewer_steps_for_the_same_answer():
    """The embedded model falls into loops in whatever goes on for long."""
    answers, steps = [], []
    for options in ((), ("--no-lookup",)):
        with serve_process(options=options) as server, client_of(server) as client:
            answer = ask(client, "你好", max_tokens=160, extra_body={"min_tokens": 160})
            answers.append(answer.choices[0].message.content)
            found = re.search(r"^glm3_step_rows_count (\d+)", httpx.get(server.url + "/metrics").text, re.M)
            steps.append(int(found[1]))
    assert answers[0] == answers[1]
    assert steps[0] < 160 <= steps[1]


def test_the_signal_to_stop_lets_answers_end_and_refuses_new_ones():
    with serve_process() as server, client_of(server) as client:
        chunks = iter(ask(client, "你好", stream=True, max_tokens=450, extra_body={"min_tokens": 450}))
        next(chunks)
        server.terminate()
        next(chunks)
        while (ready := httpx.get(server.url + "/ready")).status_code == 200:
            pass
        assert ready.json() == {"status": "draining"}
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, "你好")
        assert caught.value.status_code == 503
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
        assert reasons[-1] == "length"
        assert server.wait() == 0
        with pytest.raises(openai.APIConnectionError):
            ask(client, "你好")


def test_a_public_address_needs_a_token():
    refused = glm3("serve", "--http", "0.0.0.0:0")
    assert refused.returncode == 2
    assert "GLM3_TOKEN" in refused.stderr


def test_what_cannot_be_served_ends_with_a_message(tmp_path):
    missing = glm3("serve", "-m", str(tmp_path / "nothing"), "--http", "127.0.0.1:0", "--no-grpc")
    assert missing.returncode != 0
    assert "nothing" in missing.stderr
    assert "Traceback" not in missing.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = glm3("serve", "--http", f"127.0.0.1:{port}", "--no-grpc")
    assert busy.returncode == 1
    assert f"cannot listen at 127.0.0.1:{port}" in busy.stderr

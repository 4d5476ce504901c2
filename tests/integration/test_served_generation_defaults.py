"""What a served model's folder says of generation, where requests say nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from glm3.adapters.memory.scripted_model import ScriptedModel, hashed_scores
from glm3.domain.errors import ConfigError
from glm3.domain.generation_defaults import GenerationDefaults
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from glm3.entrypoints.ray.asgi_call import HttpCall
from glm3.entrypoints.ray.replica import Replica
from glm3.entrypoints.ray.settings import RaySettings
from support.grpc_serving import grpc_serving
from support.model_folder import make_model_folder
from support.serve_process import serve_process
from support.serving import TOKENIZER, serving

FOLDER = GenerationDefaults(do_sample=False, max_new_tokens=6)
CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
def model() -> ScriptedModel:
    size = TOKENIZER.special_tokens.vocab_size
    return ScriptedModel(hashed_scores(size), size)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("GLM3_BACKEND", "numpy")
    made = make_model_folder(tmp_path / "model")
    (made / "generation_config.json").write_text('{"do_sample": false, "max_new_tokens": 6}')
    return made


def asked(url: str, path: str, body: dict[str, Any]) -> tuple[Any, int]:
    """Return the answer, and how many tokens it has."""
    response = httpx.post(url + path, json=body, timeout=60).raise_for_status().json()
    (choice,) = response["choices"]
    return choice.get("message", choice.get("text")), response["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("path", "asking"), [(CHAT, {"messages": MESSAGES}), (COMPLETE, {"prompt": "hello"})]
)
def test_over_http(model: ScriptedModel, path: str, asking: dict[str, Any]) -> None:
    with serving(model, defaults=FOLDER) as served:
        unsaid = {**asking, "min_tokens": 3}
        said = {**unsaid, "temperature": 0, "max_tokens": 6}
        assert asked(served.url, path, unsaid) == asked(served.url, path, said)
        sampled = {**asking, "temperature": 1.5, "seed": 1, "min_tokens": 9, "max_tokens": 9}
        assert asked(served.url, path, sampled)[1] == 9
        greedy = {**asking, "min_tokens": 9, "max_tokens": 9}
        assert asked(served.url, path, sampled)[0] != asked(served.url, path, greedy)[0]


def test_over_grpc(model: ScriptedModel) -> None:
    user = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="hello")

    def answer(stub: Any, **options: Any) -> tuple[str, int]:
        request = chat_pb2.ChatRequest(messages=[user], options=options)
        deltas = [response.delta for response in stub.Chat(request, timeout=60)]
        return "".join(delta.text.text for delta in deltas), deltas[-1].usage.completion_tokens

    with grpc_serving(model, defaults=FOLDER) as served:
        unsaid = answer(served.stub, min_tokens=3)
        assert unsaid == answer(served.stub, min_tokens=3, temperature=0, max_tokens=6)
        assert unsaid != answer(served.stub, min_tokens=3, temperature=1.5, seed=1)


def test_a_replica_of_ray_reads_the_folder(folder: Path) -> None:
    replica = Replica(RaySettings.read({"model": str(folder), "slots": 1}))

    def told(**body: Any) -> Any:
        async def ask() -> bytes:
            given = json.dumps({"messages": MESSAGES, **body}).encode()
            headers = ((b"content-type", b"application/json"), (b"host", b"127.0.0.1"))
            call = HttpCall("POST", CHAT, b"", headers, ("127.0.0.1", 1), given)
            return b"".join([message.get("body", b"") async for message in replica.answer(call)])

        answer = json.loads(asyncio.run(ask()))
        return answer["choices"], answer["usage"]["completion_tokens"]

    try:
        assert told(min_tokens=3) == told(min_tokens=3, temperature=0, max_tokens=6)
        assert told(min_tokens=9, max_tokens=9)[1] == 9
    finally:
        replica.stop()


def test_a_replica_refuses_a_bad_file(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"top_p": 3}')
    with pytest.raises(ConfigError, match="top_p"):
        Replica(RaySettings.read({"model": str(folder)}))


@pytest.mark.slow
def test_the_command_reads_the_folder(folder: Path) -> None:
    """Its own option for the longest answer stands above the file."""
    arguments = ("-m", str(folder))
    with serve_process(options=arguments) as served:
        unsaid = asked(served.url, CHAT, {"messages": MESSAGES, "min_tokens": 6})
        assert unsaid == asked(
            served.url, CHAT, {"messages": MESSAGES, "min_tokens": 6, "temperature": 0, "max_tokens": 6}
        )
    with serve_process(options=(*arguments, "--default-max-tokens", "2")) as served:
        assert asked(served.url, CHAT, {"messages": MESSAGES, "min_tokens": 2})[1] == 2

"""The Python client, against a real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.limits import ServiceLimits
from glm3.client import (
    ChatClient,
    ChatOptions,
    Completion,
    FinishDelta,
    FinishReason,
    Message,
    Role,
    TextDelta,
    ThoughtDelta,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolMode,
    ToolSpec,
    UsageDelta,
)
from glm3.domain.errors import (
    AccessDeniedError,
    BackendError,
    ConfigError,
    ContextLengthError,
    Glm3Error,
    InvalidInputError,
    MissingFileError,
    MultipleFaultsError,
    OverloadedError,
    TimeLimitError,
    UnavailableError,
    UnknownModelError,
    UnknownSessionError,
)
from glm3.domain.tool_call import format_tool_call
from glm3.entrypoints.grpc.settings import GrpcSettings, TlsFiles
from support.grpc_serving import grpc_serving
from support.serving import PacedModel, metric, replies_model, within

SECONDS = 60.0
CALL = format_tool_call("get_weather", {"city": "北京"})
THOUGHT = Message(Role.ASSISTANT, "I shall look it up.")
WEATHER = ToolSpec("get_weather", {"name": "get_weather", "parameters": {"type": "object"}})
GREEDY = ChatOptions(temperature=0)


@pytest.fixture(scope="module")
def client() -> Iterator[ChatClient]:
    """A client of a server that thinks, calls a tool, and answers."""
    with (
        grpc_serving(replies_model([THOUGHT, CALL], "Sunny.")) as served,
        ChatClient(served.address, timeout=SECONDS) as made,
    ):
        yield made


def test_a_call_of_a_tool_and_the_answer_to_its_result(client):
    deltas = list(client.chat("weather?", GREEDY, tools=[WEATHER]))
    said = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    assert said.strip() == THOUGHT.content
    assert deltas[-4:-1] == [
        ThoughtDelta(0, THOUGHT.content),
        ToolCallDelta(0, ToolCall("get_weather", {"city": "北京"})),
        FinishDelta(0, FinishReason.TOOL_CALLS),
    ]
    assert isinstance(deltas[-1], UsageDelta)
    dialogue = [Message(Role.USER, "weather?"), THOUGHT, CALL, Message(Role.OBSERVATION, "sun")]
    answer = list(client.chat(dialogue, GREEDY, tools=[WEATHER]))
    assert answer[-2] == FinishDelta(0, FinishReason.STOP)


def test_a_session_does_the_same_without_sending_the_dialogue_again(client):
    with client.session("Be brief.", tools=[WEATHER]) as session:
        first = list(session.chat("weather?", GREEDY))
        assert ToolCallDelta(0, ToolCall("get_weather", {"city": "北京"})) in first
        list(session.chat(Message(Role.OBSERVATION, "sun"), GREEDY))
        kept = session.messages()
        assert kept[:5] == (
            Message(Role.SYSTEM, "Be brief."),
            Message(Role.USER, "weather?"),
            THOUGHT,
            CALL,
            Message(Role.OBSERVATION, "sun"),
        )
    with pytest.raises(UnknownSessionError):
        session.messages()


def test_several_answers_with_probabilities(client):
    options = ChatOptions(temperature=0, logprobs=True, top_logprobs=2, max_tokens=5)
    deltas = list(client.chat("weather?", options, choices=2))
    assert {delta.choice for delta in deltas if isinstance(delta, FinishDelta)} == {0, 1}
    tokens = [token for d in deltas if isinstance(d, TextDelta) for token in d.logprobs]
    assert tokens
    assert all(token.logprob <= 0 and len(token.top) == 2 for token in tokens)


def test_the_tool_that_must_be_called():
    with (
        grpc_serving(PacedModel()) as served,
        ChatClient(served.address, timeout=SECONDS) as client,
    ):
        choice = ToolChoice(ToolMode.REQUIRED, "get_weather")
        options = ChatOptions(temperature=0, max_tokens=200)
        deltas = list(client.chat("hi", options, tools=[WEATHER], tool_choice=choice))
        said = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
        assert said.startswith("get_weather\n```python\ntool_call") or any(
            isinstance(delta, ToolCallDelta) for delta in deltas
        )


def test_continuations_of_texts_and_ids(client):
    done = client.complete(["ab", [70, 71]], ChatOptions(temperature=0, max_tokens=3), echo=True)
    assert [one.text[:2] for one in done.completions] == ["ab", "CD"]
    assert all(isinstance(one, Completion) for one in done.completions)
    assert done.usage.usage.prompt_tokens == 2 + 2 + 2  # the model's prefix is put before the text only


def test_what_is_served_and_how_long_things_are(client):
    (model,) = client.models()
    assert model.names == ("scripted", "alias")
    assert client.tokenize("hi").pieces == ("h", "i")
    assert client.count_tokens("hello", tools=[WEATHER]) > client.count_tokens("hello")


def test_leaving_a_stream_ends_its_answer():
    with (
        grpc_serving(PacedModel()) as served,
        ChatClient(served.address, timeout=SECONDS) as client,
    ):
        long = ChatOptions(max_tokens=3000, min_tokens=3000)
        with client.chat("hi", long) as stream:
            next(stream)
        assert list(stream) == []
        assert within(
            SECONDS, lambda: metric(served.metrics, "glm3_requests_total", outcome="cancelled") == 1
        )


@pytest.mark.parametrize(
    ("ask", "error", "field"),
    [
        (lambda client: client.chat([]), InvalidInputError, "messages"),
        (
            lambda client: client.chat("a", ChatOptions(temperature=3)),
            InvalidInputError,
            "options.temperature",
        ),
        (
            lambda client: client.chat("a", ChatOptions(max_tokens="5")),
            InvalidInputError,
            "options.max_tokens",
        ),
        (lambda client: client.chat("a", ChatOptions(top_k=2**40)), InvalidInputError, "options.top_k"),
        (lambda client: client.chat("a", ChatOptions(temperature=3, top_p=2)), MultipleFaultsError, None),
        (lambda client: client.chat("a" * 5000), ContextLengthError, "messages"),
        (lambda client: client.chat("a", model="other"), UnknownModelError, None),
    ],
)
def test_errors_are_those_of_the_project(client, ask, error, field):
    with pytest.raises(error) as caught:
        list(ask(client))
    assert type(caught.value) is error
    assert caught.value.field == field


def test_errors_of_the_server_and_of_the_way_to_it():
    with grpc_serving(PacedModel(), limits=ServiceLimits(seconds=0.2)) as served:
        with ChatClient(served.address) as client:
            long = ChatOptions(max_tokens=3000, min_tokens=3000)
            with pytest.raises(TimeLimitError):
                list(client.chat("hi", long))
            with pytest.raises(TimeLimitError):
                list(client.chat("hi", long, timeout=0.1))
            served.lifecycle.drain()
            with pytest.raises(UnavailableError, match="about to stop"):
                list(client.chat("hi"))
        address = served.address
    with ChatClient(address, timeout=SECONDS) as client, pytest.raises(UnavailableError):
        client.models()


def test_tokens_and_rates():
    access = AccessPolicy({"ann": "a" * 20}, requests_per_minute=1)
    with grpc_serving(replies_model("x"), access=access) as served:
        with ChatClient(served.address, timeout=SECONDS) as client, pytest.raises(AccessDeniedError):
            client.models()
        with ChatClient(served.address, token="a" * 20, timeout=SECONDS) as client:
            list(client.chat("hi"))
            with pytest.raises(OverloadedError) as caught:
                list(client.chat("hi"))
            assert 0 < caught.value.retry_after <= 60


def test_the_client_needs_no_mindspore():
    code = "import sys, glm3.client; print('mindspore' in sys.modules, 'starlette' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", "False"]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, what it gave the server and a client, and another authority's client."""
    folder = tmp_path_factory.mktemp("pem")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name, authority in [
        ("ca", None),
        ("other", None),
        ("server", "ca"),
        ("client", "ca"),
        ("stranger", "other"),
    ]:
        by = () if authority is None else ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key")
        use = ("-addext", "subjectAltName=IP:127.0.0.1") if authority else ()
        openssl(
            *("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem"),
            *("-subj", f"/CN={name}", "-days", "2", *by, *use),
        )
    return folder


def tls(pem: Path, **changes: Path) -> GrpcSettings:
    return GrpcSettings(tls=TlsFiles(certificate=pem / "server.pem", key=pem / "server.key", **changes))


def test_encrypted(pem):
    with grpc_serving(replies_model("x"), settings=tls(pem)) as served:
        authority = (pem / "ca.pem").read_bytes()
        with ChatClient(served.address, root_certificates=authority, timeout=SECONDS) as client:
            assert client.models()
        for untrusting in ({"root_certificates": (pem / "other.pem").read_bytes()}, {}):
            with (
                ChatClient(served.address, timeout=SECONDS, **untrusting) as client,
                pytest.raises(Glm3Error),
            ):
                client.models()


def test_clients_without_a_certificate_of_the_authority_stay_outside(pem):
    with grpc_serving(replies_model("x"), settings=tls(pem, client_ca=pem / "ca.pem")) as served:
        authority = (pem / "ca.pem").read_bytes()

        def connect(name: str | None) -> ChatClient:
            shown = (
                {}
                if name is None
                else {
                    "certificate": (pem / f"{name}.pem").read_bytes(),
                    "key": (pem / f"{name}.key").read_bytes(),
                }
            )
            return ChatClient(served.address, root_certificates=authority, timeout=SECONDS, **shown)

        with connect("client") as client:
            assert client.models()
        for name in (None, "stranger"):
            with connect(name) as client, pytest.raises(UnavailableError):
                client.models()


def test_files_that_cannot_be_used_for_tls_are_named(pem):
    with pytest.raises(MissingFileError):
        TlsFiles(certificate=pem / "nothing", key=pem / "server.key").credentials()
    with pytest.raises(ConfigError, match=r"server\.pem"):
        TlsFiles(certificate=pem / "server.pem", key=pem / "client.key").credentials()
    with pytest.raises(ConfigError, match=r"server\.key"):
        TlsFiles(
            certificate=pem / "server.pem", key=pem / "server.key", client_ca=pem / "server.key"
        ).credentials()


def test_a_delta_of_a_later_version_is_an_error_not_silence():
    from glm3.entrypoints.client.answers import DeltaStream
    from glm3.entrypoints.grpc.glm3.v1 import chat_pb2

    class Later:
        def __next__(self) -> chat_pb2.ChatResponse:
            return chat_pb2.ChatResponse(delta=chat_pb2.Delta(choice=1))

        def cancel(self) -> bool:
            return True

    with pytest.raises(BackendError):
        next(DeltaStream(Later()))

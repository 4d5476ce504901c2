"""The gRPC server over loopback: streams, errors, clients that leave, health, reflection, sessions."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from glm3.adapters.prometheus.serving_metrics import ServingMetrics
from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.lifecycle import Lifecycle
from glm3.application.serving.limits import ServiceLimits
from glm3.application.serving.sessions import SessionLimits, SessionStore
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.errors import StorageError
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from glm3.entrypoints.grpc.glm3.v1.chat_pb2_grpc import ChatServiceStub
from glm3.entrypoints.grpc.server import GrpcServer
from glm3.entrypoints.grpc.settings import GrpcSettings
from glm3.entrypoints.serving.address import Address
from support.grpc_serving import GrpcServed, grpc_serving
from support.serving import TOKENIZER, PacedModel, metric, replies_model, within

Code = grpc.StatusCode
CHAT = "/glm3.v1.ChatService/Chat"
USER = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="hello")
SECONDS = 60
STATUS = health_pb2.HealthCheckResponse


class BrokenModel(PacedModel):
    def extend(self, cache, rows, tokens):
        raise RuntimeError("the secret of the machine")


class GatedModel(PacedModel):
    """Computes nothing until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def extend(self, cache, rows, tokens):
        assert self.gate.wait(SECONDS)
        return super().extend(cache, rows, tokens)


@pytest.fixture(scope="module")
def plain() -> Iterator[GrpcServed]:
    """A server that answers anything with x."""
    with grpc_serving(replies_model("x")) as served:
        yield served


def endless(**changes: Any) -> chat_pb2.ChatRequest:
    options = chat_pb2.GenerationOptions(max_tokens=3000, min_tokens=3000, temperature=0, **changes)
    return chat_pb2.ChatRequest(messages=[USER], options=options)


def ask(served: GrpcServed, request: chat_pb2.ChatRequest | None = None, **settings: Any) -> list[Any]:
    call = served.stub.Chat(request or chat_pb2.ChatRequest(messages=[USER]), timeout=SECONDS, **settings)
    return [response.delta for response in call]


def refused(call: Any) -> tuple[Code, str, dict[type, Any]]:
    """Return code, message and details of the error that ``call`` makes."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    metadata = dict(error.trailing_metadata() or ())
    status = Status.FromString(metadata.get("grpc-status-details-bin", b""))
    found: dict[type, Any] = {}
    for detail in status.details:
        for kind in (BadRequest, ErrorInfo, RetryInfo):
            message = kind()
            if detail.Unpack(message):
                found[kind] = message
    if status.details:
        assert (status.code, status.message) == (error.code().value[0], error.details())
    return error.code(), error.details(), found


def health_of(served: GrpcServed, service: str = "") -> Any:
    stub = health_pb2_grpc.HealthStub(served.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS).status


def test_deltas_come_while_the_answer_is_made():
    with grpc_serving(PacedModel()) as served:
        call = served.stub.Chat(endless(), timeout=SECONDS)
        first = next(call)
        assert first.delta.text.text
        assert metric(served.metrics, "glm3_running_requests") == 1
        call.cancel()
        assert within(
            SECONDS, lambda: metric(served.metrics, "glm3_requests_total", outcome="cancelled") == 1
        )
        assert metric(served.metrics, "glm3_running_requests") == 0
        assert metric(served.metrics, "glm3_generated_tokens_total") < 3000
        assert within(
            SECONDS,
            lambda: metric(served.metrics, "glm3_grpc_requests_total", method="Chat", code="CANCELLED") == 1,
        )


def test_a_reader_that_pauses_loses_nothing_and_holds_up_nobody():
    text = "".join(f"{number} " for number in range(800)).strip()
    greedy = {"temperature": 0, "max_tokens": 4000}
    with grpc_serving(replies_model(text)) as served:
        request = chat_pb2.ChatRequest(messages=[USER], options=greedy)
        paused = served.stub.Chat(request, timeout=SECONDS)
        said = [next(paused).delta]
        for _ in range(3):
            short = chat_pb2.ChatRequest(messages=[USER], options={"temperature": 0, "max_tokens": 5})
            assert ask(served, short)[-1].usage.completion_tokens == 5
        assert within(SECONDS, lambda: metric(served.metrics, "glm3_requests_total", outcome="stop") == 1)
        said += [response.delta for response in paused]
        assert "".join(delta.text.text for delta in said) == text
        assert said[-2].finish.reason == chat_pb2.FINISH_REASON_STOP


def test_a_client_that_vanishes_frees_its_slot():
    with grpc_serving(PacedModel()) as served:
        channel = grpc.insecure_channel(served.address)
        call = ChatServiceStub(channel).Chat(endless(), timeout=SECONDS)
        next(call)
        channel.close()
        assert within(
            SECONDS, lambda: metric(served.metrics, "glm3_requests_total", outcome="cancelled") == 1
        )


def test_the_callers_deadline_ends_the_answer():
    model = GatedModel()
    with grpc_serving(model) as served:
        call = served.stub.Chat(endless(), timeout=0.2)
        code, _, _ = refused(lambda: list(call))
        assert code is Code.DEADLINE_EXCEEDED
        model.gate.set()
        assert within(SECONDS, lambda: metric(served.metrics, "glm3_running_requests") == 0)
        assert metric(served.metrics, "glm3_generated_tokens_total") < 3000


def test_the_servers_own_time_limit_holds_as_well():
    with grpc_serving(PacedModel(), limits=ServiceLimits(seconds=0.2)) as served:
        code, _, details = refused(lambda: ask(served, endless()))
        assert (code, details[ErrorInfo].reason) == (Code.DEADLINE_EXCEEDED, "TIME_LIMIT")


def test_wrong_fields_are_named_in_the_details(plain):
    request = chat_pb2.ChatRequest(messages=[USER, chat_pb2.Message()], choices=0)
    request.options.temperature = 5
    code, message, details = refused(lambda: ask(plain, request))
    assert code is Code.INVALID_ARGUMENT
    fields = [violation.field for violation in details[BadRequest].field_violations]
    assert fields == ["messages[1].role", "options.temperature", "choices"]
    assert "temperature" in message


def test_what_the_service_refuses_has_the_names_of_the_messages(plain):
    wrong = chat_pb2.ChatRequest(messages=[USER], options={"max_tokens": 5000})
    assert refused(lambda: ask(plain, wrong))[2][BadRequest].field_violations[0].field == "options.max_tokens"
    many = chat_pb2.ChatRequest(messages=[USER], choices=100)
    assert refused(lambda: ask(plain, many))[2][BadRequest].field_violations[0].field == "choices"
    long = chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content="x" * 5000)])
    code, _, details = refused(lambda: ask(plain, long))
    assert (code, details[ErrorInfo].reason) == (Code.INVALID_ARGUMENT, "CONTEXT_LENGTH")


@pytest.mark.parametrize("content", [b"\xff\xff", b"\x0a\x05x", b"\x0a\x04\x12\x02\xff\xfe", b"\xc8\x01\x05"])
def test_what_cannot_be_decoded_is_the_clients_fault(plain, content):
    call = plain.channel.unary_stream(CHAT)(content, timeout=SECONDS)
    assert refused(lambda: list(call))[0] is Code.INVALID_ARGUMENT
    assert ask(plain)[0].text.text == "x"


def test_names_that_are_not_known_are_not_found(plain):
    code, _, details = refused(lambda: ask(plain, chat_pb2.ChatRequest(messages=[USER], model="other")))
    assert (code, details[ErrorInfo].reason) == (Code.NOT_FOUND, "UNKNOWN_MODEL")
    stub = plain.stub
    for method, kind in [
        (stub.GetSession, chat_pb2.GetSessionRequest),
        (stub.DeleteSession, chat_pb2.DeleteSessionRequest),
    ]:
        code, _, details = refused(lambda: method(kind(session_id="nope"), timeout=SECONDS))  # noqa: B023
        assert (code, details[ErrorInfo].reason) == (Code.NOT_FOUND, "UNKNOWN_SESSION")
    call = plain.channel.unary_unary("/glm3.v1.ChatService/Nothing")
    assert refused(lambda: call(b"", timeout=SECONDS))[0] is Code.UNIMPLEMENTED


def test_a_message_that_is_too_large_is_refused():
    with grpc_serving(replies_model("x"), settings=GrpcSettings(message_bytes=2**16)) as served:
        large = chat_pb2.ChatRequest(
            messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content="x" * 2**17)]
        )
        assert refused(lambda: ask(served, large))[0] is Code.RESOURCE_EXHAUSTED
        assert ask(served)[0].text.text == "x"


def test_a_full_queue_says_when_to_ask_again():
    with grpc_serving(PacedModel(), engine=EngineLimits(slots=1, slot_tokens=4096, queue=1)) as served:
        running = served.stub.Chat(endless(), timeout=SECONDS)
        next(running)
        waiting = served.stub.Chat(endless(), timeout=SECONDS)
        assert within(SECONDS, lambda: metric(served.metrics, "glm3_waiting_requests") == 1)
        code, _, details = refused(lambda: ask(served, endless()))
        assert code is Code.RESOURCE_EXHAUSTED
        assert details[RetryInfo].retry_delay.ToMilliseconds() > 0
        running.cancel()
        next(waiting)
        waiting.cancel()


def test_a_client_that_asks_too_often_is_told_to_wait():
    with grpc_serving(replies_model("x"), access=AccessPolicy(requests_per_minute=2)) as served:
        ask(served)
        ask(served)
        code, _, details = refused(lambda: ask(served))
        assert code is Code.RESOURCE_EXHAUSTED
        assert 0 < details[RetryInfo].retry_delay.ToMilliseconds() <= 30_000


def test_a_model_that_fails_costs_its_own_request_only_and_tells_no_secrets():
    with grpc_serving(BrokenModel()) as served:
        code, message, details = refused(lambda: ask(served))
        assert (code, details[ErrorInfo].reason) == (Code.INTERNAL, "INTERNAL")
        assert "secret" not in message
        assert health_of(served) == STATUS.SERVING


def test_who_shows_no_token_learns_the_health_and_nothing_else():
    with grpc_serving(replies_model("x"), access=AccessPolicy({"ann": "a" * 20})) as served:
        for metadata in ((), (("authorization", "Bearer " + "b" * 20),), (("authorization", "a" * 20),)):
            code, _, details = refused(lambda: ask(served, metadata=metadata))  # noqa: B023
            assert (code, details[ErrorInfo].reason) == (Code.UNAUTHENTICATED, "ACCESS_DENIED")
        assert health_of(served) == STATUS.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            ProtoReflectionDescriptorDatabase(served.channel).get_services()
        assert caught.value.code() is Code.UNAUTHENTICATED  # type: ignore[attr-defined]
        assert ask(served, metadata=(("authorization", "Bearer " + "a" * 20),))[0].text.text == "x"


def test_the_callers_name_for_a_call_comes_back(plain):
    stub = plain.stub
    call = stub.Chat(
        chat_pb2.ChatRequest(messages=[USER]), timeout=SECONDS, metadata=(("x-request-id", "my-own"),)
    )
    assert dict(call.initial_metadata())["x-request-id"] == "my-own"
    list(call)
    call = stub.Chat(
        chat_pb2.ChatRequest(messages=[USER]), timeout=SECONDS, metadata=(("x-request-id", "no id"),)
    )
    assert dict(call.initial_metadata())["x-request-id"] not in ("", "no id")
    list(call)


def test_nothing_of_a_prompt_is_in_the_log_unless_asked(capsys):
    for wanted in (False, True):
        capsys.readouterr()
        with grpc_serving(replies_model("the answer"), settings=GrpcSettings(log_content=wanted)) as served:
            ask(served)
        logged = capsys.readouterr().out
        assert "answered" in logged
        assert ("hello" in logged) is wanted
        said = "".join(re.findall(r"TextDelta\(choice=0, text='([^']*)'", logged))  # in pieces of any size
        assert ("the answer" in said) is wanted


def test_while_the_model_loads_callers_are_told_to_come_again():
    with grpc_serving(replies_model("x"), loading=True) as served:
        assert health_of(served) == STATUS.NOT_SERVING
        code, _, details = refused(lambda: ask(served))
        assert code is Code.UNAVAILABLE
        assert details[RetryInfo].retry_delay.seconds == 5


def test_draining_ends_with_the_last_answer():
    """Health turns first, what runs goes on, what is new is refused."""
    with grpc_serving(PacedModel()) as served:
        watch = health_pb2_grpc.HealthStub(served.channel).Watch(
            health_pb2.HealthCheckRequest(service="glm3.v1.ChatService"), timeout=SECONDS
        )
        assert next(watch).status == STATUS.SERVING
        options = {"max_tokens": 400, "min_tokens": 400, "temperature": 0}
        running = served.stub.Chat(chat_pb2.ChatRequest(messages=[USER], options=options), timeout=SECONDS)
        next(running)
        served.lifecycle.drain()
        assert next(watch).status == STATUS.NOT_SERVING
        watch.cancel()
        code, _, details = refused(lambda: ask(served))
        assert (code, details[ErrorInfo].reason) == (Code.UNAVAILABLE, "UNAVAILABLE")
        *_, finish, usage = running
        assert finish.delta.finish.reason == chat_pb2.FINISH_REASON_LENGTH
        assert usage.delta.usage.completion_tokens == 400


def test_health_knows_the_services(plain):
    assert health_of(plain, "glm3.v1.ChatService") == STATUS.SERVING
    code, _, _ = refused(lambda: health_of(plain, "other"))
    assert code is Code.NOT_FOUND


def test_reflection_describes_the_service(plain):
    database = ProtoReflectionDescriptorDatabase(plain.channel)
    assert {"glm3.v1.ChatService", "grpc.health.v1.Health"} <= set(database.get_services())
    service = DescriptorPool(database).FindServiceByName("glm3.v1.ChatService")
    known = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].methods_by_name
    assert {method.name for method in service.methods} == set(known)


def test_a_session_keeps_the_dialogue_and_its_cache():
    with grpc_serving(replies_model("one", "two")) as served:
        stub = served.stub
        system = chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, content="Be brief.")
        made = stub.CreateSession(chat_pb2.CreateSessionRequest(messages=[system]), timeout=SECONDS).session
        assert made.idle_seconds == SessionLimits().idle_seconds

        def turn() -> list[Any]:
            request = chat_pb2.SessionChatRequest(session_id=made.id, messages=[USER])
            return [response.delta for response in stub.SessionChat(request, timeout=SECONDS)]

        first, second = turn(), turn()
        assert ("".join(d.text.text for d in first), "".join(d.text.text for d in second)) == ("one", "two")
        whole = first[-1].usage.prompt_tokens + first[-1].usage.completion_tokens
        assert second[-1].usage.cached_tokens == whole - 1  # the last token was never computed
        request = chat_pb2.GetSessionRequest(session_id=made.id)
        kept = stub.GetSession(request, timeout=SECONDS).session.messages
        assert [one.content for one in kept] == ["Be brief.", "hello", "one", "hello", "two"]
        stub.DeleteSession(chat_pb2.DeleteSessionRequest(session_id=made.id), timeout=SECONDS)
        assert refused(lambda: stub.GetSession(request, timeout=SECONDS))[0] is Code.NOT_FOUND


def test_a_session_is_of_one_turn_at_a_time_and_forgets_what_is_cancelled():
    with grpc_serving(PacedModel()) as served:
        stub = served.stub
        made = stub.CreateSession(chat_pb2.CreateSessionRequest(), timeout=SECONDS).session.id
        long = chat_pb2.SessionChatRequest(session_id=made, messages=[USER], options=endless().options)
        running = stub.SessionChat(long, timeout=SECONDS)
        next(running)
        code, message, _ = refused(lambda: list(stub.SessionChat(long, timeout=SECONDS)))
        assert (code, "another turn" in message) == (Code.RESOURCE_EXHAUSTED, True)
        running.cancel()
        short = chat_pb2.SessionChatRequest(session_id=made, messages=[USER], options={"max_tokens": 3})

        def free() -> bool:
            try:
                return bool(list(stub.SessionChat(short, timeout=SECONDS)))
            except grpc.RpcError:
                return False

        assert within(SECONDS, free)
        kept = stub.GetSession(chat_pb2.GetSessionRequest(session_id=made), timeout=SECONDS).session.messages
        assert [one.role for one in kept] == [chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT]


def test_sessions_belong_to_their_clients_and_are_bounded():
    access = AccessPolicy({"ann": "a" * 20, "bob": "b" * 20})
    store = SessionStore(SessionLimits(sessions=2, per_client=1))
    with grpc_serving(replies_model("x"), access=access, sessions=store) as served:
        stub = served.stub
        ann: Any = {"metadata": (("authorization", "Bearer " + "a" * 20),), "timeout": SECONDS}
        bob: Any = {"metadata": (("authorization", "Bearer " + "b" * 20),), "timeout": SECONDS}
        made = stub.CreateSession(chat_pb2.CreateSessionRequest(), **ann).session.id
        request = chat_pb2.GetSessionRequest(session_id=made)
        assert stub.GetSession(request, **ann).session.id == made
        assert refused(lambda: stub.GetSession(request, **bob))[0] is Code.NOT_FOUND
        code, _, details = refused(lambda: stub.CreateSession(chat_pb2.CreateSessionRequest(), **ann))
        assert code is Code.RESOURCE_EXHAUSTED
        assert details[RetryInfo].retry_delay.seconds > 60


def test_an_address_that_is_taken_is_reported(plain):
    async def listen() -> None:
        address = Address.parse(plain.address, "--grpc")
        GrpcServer(Lifecycle(), AccessPolicy(), SessionStore(), ServingMetrics(), GrpcSettings(), address)

    with pytest.raises(StorageError, match="cannot listen at"):
        asyncio.run(listen())


def test_tokens_are_those_of_the_tokenizer(plain):
    stub = plain.stub
    response = stub.Tokenize(chat_pb2.TokenizeRequest(text="hi"), timeout=SECONDS)
    assert list(response.ids) == TOKENIZER.encode("hi")
    assert "".join(response.pieces) == "hi"
    counted = stub.CountTokens(chat_pb2.CountTokensRequest(messages=[USER]), timeout=SECONDS).count
    assert counted == ask(plain)[-1].usage.prompt_tokens

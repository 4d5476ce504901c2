"""Requests made up from the service description: the client's fault at worst, and nobody else's trouble."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm3.application.serving.limits import ServiceLimits
from glm3.application.serving.sessions import SessionLimits, SessionStore
from glm3.domain.engine.limits import EngineLimits
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from support.grpc_serving import GrpcServed, grpc_serving
from support.serving import replies_model

SECONDS = 60
SERVICE = chat_pb2.DESCRIPTOR.services_by_name["ChatService"]
SESSION = "a session that exists"
ALLOWED = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}

texts = st.one_of(
    st.sampled_from(["", "look", "{}", "[]", '{"a": 1}', '{"a": [[]]}', "<|user|>", "\n", "\0", "scripted"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
WILD: dict[int, Any] = {
    FieldDescriptor.TYPE_STRING: texts,
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.one_of(st.floats(0, 2), st.floats()),
    FieldDescriptor.TYPE_INT32: st.one_of(st.integers(0, 9), st.integers(-(2**31), 2**31 - 1)),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_ENUM: st.integers(-1, 9),
}
# Nearly every value that is legal somewhere, so that requests come as far as the model.
TAME: dict[int | str, Any] = {
    **WILD,
    FieldDescriptor.TYPE_DOUBLE: st.floats(0.25, 1),
    FieldDescriptor.TYPE_INT32: st.integers(1, 3),
    FieldDescriptor.TYPE_ENUM: st.integers(1, 3),
    "arguments_json": st.sampled_from(["", "{}", '{"city": "北京"}']),
    "metadata": st.just(""),
    "model": st.sampled_from(["", "scripted", "alias"]),
    "name": st.sampled_from(["look", "interpreter"]),
    "parameters_json": st.sampled_from(["", "{}"]),
    "role": st.sampled_from([chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT]),
    "session_id": st.just(SESSION),
    "stop": st.lists(st.sampled_from(["x", "。"]), max_size=2),
    "top_logprobs": st.just(0),
}
NEEDED = {"ids", "messages", "name", "prompts", "role", "session_id"}


def messages_of(descriptor: Descriptor, scalars: dict[Any, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return dicts that make messages of that kind; in wild ones any field may be missing."""
    fields = {field.name: values_of(field, scalars) for field in descriptor.fields}
    oneofs = [{field.name for field in oneof.fields} for oneof in descriptor.oneofs if len(oneof.fields) > 1]

    def one_each(values: dict[str, Any]) -> dict[str, Any]:
        for names in oneofs:
            for extra in sorted(names & set(values))[1:]:
                del values[extra]
        return values

    needed = NEEDED & set(fields) if scalars is TAME else set()
    present = {name: fields.pop(name) for name in needed}
    return st.fixed_dictionaries(present, optional=fields).map(one_each)


def values_of(field: FieldDescriptor, scalars: dict[Any, Any]) -> st.SearchStrategy[Any]:
    if field.name in scalars:
        return scalars[field.name]
    one = messages_of(field.message_type, scalars) if field.message_type else scalars[field.type]
    least = int(scalars is TAME and field.name in NEEDED)
    return st.lists(one, min_size=least, max_size=3) if field.is_repeated else one


calls = st.one_of(
    *(
        st.tuples(st.just(method.name), messages_of(method.input_type, scalars))
        for method in SERVICE.methods
        for scalars in (TAME, WILD)
    ),
    st.tuples(st.sampled_from([method.name for method in SERVICE.methods]), st.binary(max_size=60)),
)


def encoded(name: str, values: dict[str, Any] | bytes, session_id: str) -> bytes:
    if isinstance(values, bytes):
        return values
    if values.get("session_id") == SESSION:
        values = {**values, "session_id": session_id}
    kind = message_factory.GetMessageClass(SERVICE.methods_by_name[name].input_type)
    content: bytes = kind(**values).SerializeToString()
    return content


@pytest.fixture(scope="module")
def served() -> Iterator[GrpcServed]:
    limits = ServiceLimits(output_tokens=20, default_output_tokens=20)
    sessions = SessionStore(SessionLimits(sessions=10_000, per_client=10_000))
    engine = EngineLimits(slots=4, slot_tokens=512)
    with grpc_serving(replies_model("x"), limits=limits, sessions=sessions, engine=engine) as running:
        yield running


def call(served: GrpcServed, name: str, content: bytes) -> str:
    path = f"/{SERVICE.full_name}/{name}"
    method = served.channel.unary_stream(path)
    answers = method(content, timeout=SECONDS)
    try:
        list(answers)
    except grpc.RpcError as error:
        return error.code().name  # type: ignore[attr-defined,no-any-return]
    return "OK"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls)
def test_no_request_gets_anything_but_an_answer_or_its_own_fault(served, asked):
    name, values = asked
    session = served.stub.CreateSession(chat_pb2.CreateSessionRequest(), timeout=SECONDS).session.id
    content = encoded(name, values, session)
    assert call(served, name, content) in {"OK", *ALLOWED}
    if name != "DeleteSession" or session.encode() not in content:
        served.stub.DeleteSession(chat_pb2.DeleteSessionRequest(session_id=session), timeout=SECONDS)


def test_the_server_answers_after_all_that(served):
    request = chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content="hello")])
    assert call(served, "Chat", request.SerializeToString()) == "OK"

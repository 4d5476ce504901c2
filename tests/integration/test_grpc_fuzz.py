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
ALLOWED = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}

texts = st.one_of(
    st.sampled_from(["", "look", "{}", "[]", '{"a": 1}', '{"a": [[]]}', "<|user|>", "\n", "\0", "scripted"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
SCALARS: dict[int, Any] = {
    FieldDescriptor.TYPE_STRING: texts,
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.one_of(st.floats(0, 2), st.floats()),
    FieldDescriptor.TYPE_INT32: st.one_of(st.integers(0, 9), st.integers(-(2**31), 2**31 - 1)),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_ENUM: st.integers(-1, 9),
}


def messages_of(descriptor: Descriptor) -> st.SearchStrategy[dict[str, Any]]:
    """Return dicts that make messages of that kind; each field may be missing."""
    fields = {field.name: values_of(field) for field in descriptor.fields}
    oneofs = [{field.name for field in oneof.fields} for oneof in descriptor.oneofs if len(oneof.fields) > 1]

    def one_each(values: dict[str, Any]) -> dict[str, Any]:
        for names in oneofs:
            for extra in sorted(names & set(values))[1:]:
                del values[extra]
        return values

    return st.fixed_dictionaries({}, optional=fields).map(one_each)


def values_of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    one = messages_of(field.message_type) if field.message_type else SCALARS[field.type]
    return st.lists(one, max_size=3) if field.is_repeated else one


METHODS = {method.name: messages_of(method.input_type) for method in SERVICE.methods}
calls = st.one_of(
    *(
        values.map(
            lambda given, kind=SERVICE.methods_by_name[name].input_type, name=name: (
                name,
                encoded(kind, given),
            )
        )
        for name, values in METHODS.items()
    ),
    st.tuples(st.sampled_from(sorted(METHODS)), st.binary(max_size=60)),
)


def encoded(kind: Descriptor, values: dict[str, Any]) -> bytes:
    content: bytes = message_factory.GetMessageClass(kind)(**values).SerializeToString()
    return content


@pytest.fixture(scope="module")
def served() -> Iterator[GrpcServed]:
    limits = ServiceLimits(output_tokens=20, default_output_tokens=20)
    sessions = SessionStore(SessionLimits(sessions=50))
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
    name, content = asked
    assert call(served, name, content) in {"OK", *ALLOWED}


def test_the_server_answers_after_all_that(served):
    request = chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content="hello")])
    assert call(served, "Chat", request.SerializeToString()) == "OK"

"""``glm3 serve`` as a process, asked over gRPC, until it is told to stop."""

from __future__ import annotations

import json

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from glm3.client import ChatClient, ChatOptions, FinishDelta, FinishReason, TextDelta
from glm3.domain.errors import UnavailableError
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from glm3.entrypoints.grpc.glm3.v1.chat_pb2_grpc import ChatServiceStub
from support.serve_process import serve_process

SECONDS = 60.0
GREEDY = ChatOptions(temperature=0, max_tokens=40)


@pytest.mark.slow
def test_a_stream_ends_well_although_the_server_is_told_to_stop():
    """Health turns first, what runs goes on, what is new is refused; the log has ids and no prompts."""
    with (
        serve_process("--log-level", "info", "--log-format", "json") as server,
        ChatClient(server.grpc, timeout=SECONDS) as client,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        with client.session("Be brief.") as session:
            said = [delta.text for delta in session.chat("你好", GREEDY) if isinstance(delta, TextDelta)]
            assert "".join(said).strip() == session.messages()[-1].content.strip() != ""
        call = ChatServiceStub(channel).Chat(
            chat_pb2.ChatRequest(
                messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content="a very private question")],
                options={"max_tokens": 5},
            ),
            metadata=(("x-request-id", "my-own-id"),),
            timeout=SECONDS,
        )
        list(call)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        stream = client.chat("你好", ChatOptions(temperature=0, max_tokens=450, min_tokens=450))
        next(stream)
        server.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        with pytest.raises(UnavailableError):
            list(client.chat("你好"))
        *_, finish, usage = stream
        assert finish == FinishDelta(0, FinishReason.LENGTH)
        assert usage.usage.completion_tokens == 450
        assert server.wait() == 0
        lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
        own = [line["event"] for line in lines if line.get("request_id") == "my-own-id"]
        assert own == ["answered", "request"]
        assert "private" not in server.log
        assert "Traceback" not in server.log

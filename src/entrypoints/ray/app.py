"""The application for Ray Serve: ``serve run glm3.entrypoints.ray.app:build model=... min_replicas=2``.

An ingress reads each request and sends it to the replica that knows its conversation. Ray's router prefers
the replicas that have announced a name (a model's name, in Ray's words; here a conversation's), and takes
the least busy one where there is none or it is full.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message

from glm3.entrypoints.ray.asgi_call import HttpCall
from glm3.entrypoints.ray.conversation import conversation_key
from glm3.entrypoints.ray.replica import Replica
from glm3.entrypoints.ray.settings import RaySettings

__all__ = ["REPLICA_HEADER", "build"]

REPLICA_HEADER = "x-glm3-replica"
"""In each response: which replica has answered."""

_CONVERSATIONS = 256  # that a replica is known for; with more, the one unused for longest is forgotten
_INGRESS_REQUESTS = 1000


def build(arguments: Mapping[str, Any]) -> Any:
    """Return the application.

    Raises:
        ConfigError: an argument is unknown or wrong; see :class:`RaySettings`.
    """
    settings = RaySettings.read(arguments)
    scaling: dict[str, Any] = {"num_replicas": settings.min_replicas}
    if settings.max_replicas > settings.min_replicas:
        scaling = {
            "autoscaling_config": {
                "min_replicas": settings.min_replicas,
                "max_replicas": settings.max_replicas,
                "target_ongoing_requests": settings.target_requests or settings.slots,
            }
        }
    replicas = serve.deployment(
        _Replica,
        name="glm3",
        max_ongoing_requests=settings.slots + settings.queue,
        ray_actor_options={"num_cpus": settings.threads},
        graceful_shutdown_timeout_s=settings.seconds,
        **scaling,
    )
    ingress = serve.deployment(
        _Ingress,
        name="glm3-ingress",
        max_ongoing_requests=_INGRESS_REQUESTS,
        ray_actor_options={"num_cpus": 0},
    )
    return ingress.bind(replicas.bind(settings))


class _Replica(Replica):
    """A replica that is known for its conversations."""

    async def answer(self, call: HttpCall) -> AsyncIterator[Message]:
        if conversation := serve.get_multiplexed_model_id():
            await self._remember(conversation)
        async for message in super().answer(call):
            if message["type"] == "http.response.start":
                name = serve.get_replica_context().replica_id.unique_id
                message["headers"] = [*message["headers"], (REPLICA_HEADER.encode(), name.encode())]
            yield message

    @serve.multiplexed(max_num_models_per_replica=_CONVERSATIONS)  # type: ignore[untyped-decorator]
    async def _remember(self, conversation: str) -> str:
        """Announce a conversation; its KV cache comes by answering, so there is nothing to load."""
        return conversation

    def __del__(self) -> None:
        self.stop()


class _Ingress:
    """Read requests, and pass on what a replica answers."""

    def __init__(self, replicas: Any) -> None:
        self._replicas = replicas.options(stream=True)

    async def __call__(self, request: Request) -> StreamingResponse:
        body = await request.body()
        call = HttpCall(
            method=request.method,
            path=request.url.path,
            query=request.scope["query_string"],
            headers=tuple((bytes(name), bytes(value)) for name, value in request.headers.raw),
            client=None if request.client is None else (request.client.host, request.client.port),
            body=body,
        )
        key = conversation_key(request.headers, body)
        asked = self._replicas.options(multiplexed_model_id=key) if key else self._replicas
        messages = asked.answer.remote(call)
        start = await anext(messages)
        response = StreamingResponse(_bodies(messages), status_code=start["status"])
        response.raw_headers = [(bytes(name), bytes(value)) for name, value in start["headers"]]
        return response


async def _bodies(messages: Any) -> AsyncIterator[bytes]:
    """Yield what is in the messages behind the first; a client that goes away cancels the answer."""
    try:
        async for message in messages:
            if message["type"] == "http.response.body":
                yield message.get("body", b"")
    finally:
        messages.cancel()

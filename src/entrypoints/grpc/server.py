"""Run the gRPC services at an address."""

from __future__ import annotations

import asyncio

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from glm3.adapters.prometheus.serving_metrics import ServingMetrics
from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.lifecycle import Lifecycle, Phase
from glm3.application.serving.sessions import SessionStore
from glm3.domain.errors import StorageError
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from glm3.entrypoints.grpc.glm3.v1.chat_pb2_grpc import add_ChatServiceServicer_to_server
from glm3.entrypoints.grpc.scope import CallScope
from glm3.entrypoints.grpc.servicer import ChatServicer
from glm3.entrypoints.grpc.settings import GrpcSettings
from glm3.entrypoints.serving.address import Address, bind

__all__ = ["GrpcServer"]

_FLUSH_SECONDS = 5
_CHAT = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
_STATUS = health_pb2.HealthCheckResponse


class GrpcServer:
    """Serve chats, health and reflection; see :class:`glm3.entrypoints.serving.frontend.Frontend`.

    It is made inside the event loop that it serves in, and listens from then on.

    Raises:
        StorageError: the system does not let it listen there.
        Glm3Error: the files for TLS cannot be used.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        access: AccessPolicy,
        sessions: SessionStore,
        metrics: ServingMetrics,
        settings: GrpcSettings,
        address: Address,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._lifecycle = lifecycle
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=[CallScope(access, metrics, settings.send_seconds)],
            options=settings.channel_options(),
        )
        servicer = ChatServicer(lifecycle, access, sessions, settings)
        add_ChatServiceServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (_CHAT, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._encrypted = settings.tls is not None
        self.address = self._listen(address, None if settings.tls is None else settings.tls.credentials())

    @property
    def url(self) -> str:
        return f"{'grpcs' if self._encrypted else 'grpc'}://{self.address}"

    async def serve(self) -> None:
        tell = asyncio.Queue[Phase]()

        def listener(phase: Phase) -> None:
            self._loop.call_soon_threadsafe(tell.put_nowait, phase)

        self._lifecycle.listen(listener)
        await self._server.start()
        teller = asyncio.create_task(self._tell_health(tell))
        try:
            await self._stopped.wait()
            await self._server.stop(_FLUSH_SECONDS)
        finally:
            teller.cancel()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _tell_health(self, phases: asyncio.Queue[Phase]) -> None:
        while True:
            status = _STATUS.SERVING if await phases.get() is Phase.READY else _STATUS.NOT_SERVING
            for service in ("", _CHAT):
                await self._health.set(service, status)

    def _listen(self, address: Address, credentials: grpc.ServerCredentials | None) -> Address:
        if address.port:
            bind(address).close()  # to say why the system refuses, which gRPC does not
        try:
            if credentials is None:
                port = self._server.add_insecure_port(str(address))
            else:
                port = self._server.add_secure_port(str(address), credentials)
        except RuntimeError:
            port = 0
        if not port:
            raise StorageError(f"cannot listen at {address}", hint="choose another address")
        return Address(address.host, port)

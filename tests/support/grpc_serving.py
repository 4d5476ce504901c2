"""A real gRPC server on loopback over a model of the test's choice, in threads of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from attrs import frozen

from glm3.adapters.prometheus.serving_metrics import ServingMetrics
from glm3.application.engine import Engine
from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.lifecycle import Lifecycle
from glm3.application.serving.limits import ServiceLimits
from glm3.application.serving.sessions import SessionStore
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.generation_defaults import UNSAID, GenerationDefaults
from glm3.domain.ports.model import LanguageModel
from glm3.entrypoints.grpc.glm3.v1.chat_pb2_grpc import ChatServiceStub
from glm3.entrypoints.grpc.server import GrpcServer
from glm3.entrypoints.grpc.settings import GrpcSettings
from glm3.entrypoints.serving.address import Address
from support.serving import service_of


@frozen
class GrpcServed:
    """A running server and what is behind it."""

    address: str
    channel: grpc.Channel
    engine: Engine
    lifecycle: Lifecycle
    metrics: ServingMetrics

    @property
    def stub(self) -> ChatServiceStub:
        return ChatServiceStub(self.channel)


@contextmanager
def grpc_serving(
    model: LanguageModel,
    *,
    engine: EngineLimits | None = None,
    limits: ServiceLimits | None = None,
    defaults: GenerationDefaults = UNSAID,
    access: AccessPolicy | None = None,
    sessions: SessionStore | None = None,
    settings: GrpcSettings | None = None,
    loading: bool = False,
) -> Iterator[GrpcServed]:
    """Run a server for the duration of the block; while ``loading`` it has no model yet."""
    metrics = ServingMetrics()
    lifecycle = Lifecycle()
    setup = {"engine": engine, "limits": limits, "defaults": defaults}
    with service_of(model, observer=metrics, **setup) as (service, running):
        metrics.watch(service.stats)
        if not loading:
            lifecycle.ready(service)
        made: list[GrpcServer] = []
        listening = threading.Event()

        async def serve() -> None:
            server = GrpcServer(
                lifecycle,
                access or AccessPolicy(),
                sessions or SessionStore(),
                metrics,
                settings or GrpcSettings(),
                Address("127.0.0.1", 0),
            )
            made.append(server)
            listening.set()
            await server.serve()

        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        assert listening.wait(30)
        address = str(made[0].address)
        try:
            with grpc.insecure_channel(address) as channel:
                yield GrpcServed(address, channel, running, lifecycle, metrics)
        finally:
            made[0].stop()
            thread.join(timeout=30)
            assert not thread.is_alive()

"""Load a model, serve it, and drain before the end."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence

import structlog
from attrs import frozen

from glm3.application.engine import Engine
from glm3.application.load_model import LoadedModel
from glm3.application.serving.lifecycle import Lifecycle, Phase
from glm3.application.serving.limits import ServiceLimits
from glm3.application.serving.service import ChatService
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.errors import BackendError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.engine_observer import EngineObserver
from glm3.entrypoints.serving.frontend import Frontend

__all__ = ["ServePlan", "run"]

_log = structlog.get_logger(__name__)

_JOIN_SECONDS = 10.0


@frozen(kw_only=True)
class ServePlan:
    """What to serve, and how.

    Args:
        load: bring the model; it is called in the thread that will run it.
        names: what the model is called.
        engine_limits: the budget, once the model's configuration is known.
        service_limits: bounds of a request.
        observer: told what the engine does.
        drain_seconds: how long running answers may go on after the signal to stop.
        announce: told once the model is ready.
    """

    load: Callable[[], LoadedModel]
    names: Sequence[str]
    engine_limits: Callable[[ModelConfig], EngineLimits]
    service_limits: ServiceLimits
    observer: EngineObserver
    drain_seconds: float
    announce: Callable[[ChatService], None]


async def run(plan: ServePlan, lifecycle: Lifecycle, frontends: Sequence[Frontend]) -> None:
    """Serve until SIGTERM or SIGINT, then let running answers end; a second signal does not wait for them.

    Raises:
        Glm3Error: the model cannot be loaded, or a server failed.
    """
    await _Run(plan, lifecycle, frontends).run()


class _Run:
    def __init__(self, plan: ServePlan, lifecycle: Lifecycle, frontends: Sequence[Frontend]) -> None:
        self._plan = plan
        self._lifecycle = lifecycle
        self._frontends = frontends
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._engine: Engine | None = None
        self._error: BaseException | None = None

    async def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled)
        model = threading.Thread(target=self._run_model, name="glm3-engine", daemon=True)
        model.start()
        servers = [asyncio.create_task(self._serve(frontend)) for frontend in self._frontends]
        try:
            await self._stop.wait()
            await self._drain()
        finally:
            if self._engine is not None:
                self._engine.stop()
            for frontend in self._frontends:
                frontend.stop()
            await asyncio.gather(*servers)
            await asyncio.to_thread(model.join, _JOIN_SECONDS)
        if self._error is not None:
            raise self._error

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _run_model(self) -> None:
        try:
            loaded = self._plan.load()
            limits = self._plan.engine_limits(loaded.model.config)
            engine = Engine(loaded.model, limits, self._plan.observer)
        except Exception as error:
            self._loop.call_soon_threadsafe(self._fail, error)
            return
        self._engine = engine
        plan = self._plan
        service = ChatService(engine, loaded.tokenizer, plan.names, plan.service_limits, loaded.generation)
        self._loop.call_soon_threadsafe(self._ready, service)
        engine.run()

    def _ready(self, service: ChatService) -> None:
        self._lifecycle.ready(service)
        if self._lifecycle.phase is Phase.READY:
            self._plan.announce(service)

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._stop.set()

    async def _serve(self, frontend: Frontend) -> None:
        try:
            await frontend.serve()
        except Exception as error:
            self._fail(error)
        if not self._stop.is_set():
            self._fail(BackendError(f"the server at {frontend.url} has ended"))

    async def _drain(self) -> None:
        self._lifecycle.drain()
        if self._engine is None or self._error is not None:
            return
        stats = self._engine.stats()
        _log.info("draining", running=stats.running, waiting=stats.waiting, seconds=self._plan.drain_seconds)
        idle = asyncio.create_task(asyncio.to_thread(self._engine.wait_idle, self._plan.drain_seconds))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({idle, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        self._engine.stop()  # lets the waiting thread go, too
        await idle

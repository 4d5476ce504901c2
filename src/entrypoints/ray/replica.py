"""One replica: an engine with its own KV cache, asked through records instead of sockets."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.types import Message

from glm3.application.engine import Engine
from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.lifecycle import Lifecycle
from glm3.application.serving.limits import ServiceLimits
from glm3.application.serving.service import ChatService
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.ports.backend import LoadOptions
from glm3.entrypoints.container import build_container
from glm3.entrypoints.http.app import build_app
from glm3.entrypoints.http.settings import HttpSettings
from glm3.entrypoints.ray.asgi_call import HttpCall, answer
from glm3.entrypoints.ray.settings import RaySettings
from glm3.entrypoints.serving.tokens import read_tokens

__all__ = ["Replica"]


class Replica:
    """Load the model, and answer until the end of the process.

    Raises:
        Glm3Error: the model or the file of tokens cannot be read.
    """

    def __init__(self, settings: RaySettings) -> None:
        container = build_container()
        metrics = container.serving_metrics()
        lifecycle = Lifecycle()
        metrics.watch(lambda: None if (service := lifecycle.loaded()) is None else service.stats())
        tokens = read_tokens(settings.token_file)
        http = HttpSettings(body_bytes=settings.body_bytes, loopback_only=not tokens)
        self._app = build_app(lifecycle, AccessPolicy(tokens), metrics, http)
        self._error: Exception | None = None
        loaded = threading.Event()

        def run() -> None:  # in one thread from the beginning, as the runtime wants it
            try:
                options = LoadOptions(threads=settings.threads, quant=settings.quant)
                model = container.models().load(settings.model, options)
                context = model.model.config.seq_length
                limits = EngineLimits(
                    slots=settings.slots,
                    slot_tokens=min(settings.slot_tokens or context, context),
                    queue=settings.queue,
                )
                self._engine = Engine(model.model, limits, metrics)
            except Exception as error:  # raised by the constructor
                self._error = error
                return
            finally:
                loaded.set()
            name = settings.model_name or Path(settings.model).name
            bounds = ServiceLimits(seconds=settings.seconds)
            service = ChatService(self._engine, model.tokenizer, [name], bounds, model.generation)
            lifecycle.ready(service)
            ready.set()
            self._engine.run()

        ready = threading.Event()
        self._thread = threading.Thread(target=run, name="glm3-engine", daemon=True)
        self._thread.start()
        loaded.wait()
        if self._error is not None:
            raise self._error
        ready.wait()

    async def answer(self, call: HttpCall) -> AsyncIterator[Message]:
        """Yield the ASGI messages of the response; closing the iterator cancels the answer."""
        async for message in answer(self._app, call):
            yield message

    def check_health(self) -> None:
        """Fail when the engine's thread has ended.

        Raises:
            RuntimeError: it has.
        """
        if not self._thread.is_alive():
            raise RuntimeError("the engine has ended")

    def stop(self) -> None:
        """End the engine; what runs is cancelled."""
        self._engine.stop()
        self._thread.join(10)

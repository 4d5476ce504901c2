"""A real HTTP server on loopback over a model of the test's choice, in threads of this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from attrs import frozen
from prometheus_client.parser import text_string_to_metric_families

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.scripted_model import ScriptedModel, hashed_scores, reply_scores
from glm3.adapters.prometheus.serving_metrics import ServingMetrics
from glm3.application.engine import Engine
from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.lifecycle import Lifecycle
from glm3.application.serving.limits import ServiceLimits
from glm3.application.serving.service import ChatService
from glm3.domain.conversation import Message, Role
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.generation_defaults import UNSAID, GenerationDefaults
from glm3.domain.ports.engine_observer import EngineObserver
from glm3.domain.ports.model import LanguageModel
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.prompt import PromptBuilder
from glm3.entrypoints.http.app import build_app
from glm3.entrypoints.http.server import HttpServer
from glm3.entrypoints.http.settings import HttpSettings
from glm3.entrypoints.serving.address import Address, bind

TOKENIZER = ByteTokenizer()


def replies_model(*replies: str | Message | Sequence[Message], seq_length: int = 4096) -> ScriptedModel:
    """Return a model that reads out ``replies``, one for each ``<|assistant|>`` of its prompt.

    Several messages make one answer of several parts; one that ends in a call ends as calls do.
    """
    special = TOKENIZER.special_tokens
    builder = PromptBuilder(TOKENIZER)

    def ids(reply: str | Message | Sequence[Message]) -> list[int]:
        if isinstance(reply, str):
            reply = Message(Role.ASSISTANT, reply)
        messages = [reply] if isinstance(reply, Message) else list(reply)
        body = [token for message in messages for token in builder.message_ids(message)][1:]
        return [*body, special.observation if messages[-1].metadata else special.user]

    scores = reply_scores(
        [ids(reply) for reply in replies],
        special.vocab_size,
        start_id=special.assistant,
        end_id=special.user,
    )
    return ScriptedModel(scores, special.vocab_size, seq_length=seq_length)


class PacedModel(ScriptedModel):
    """Answers anything at 2 ms a step, which is slow enough to look at it at work."""

    def __init__(self) -> None:
        size = TOKENIZER.special_tokens.vocab_size
        super().__init__(hashed_scores(size), size, seq_length=4096)

    def extend(self, cache, rows, tokens):
        time.sleep(0.002)
        return super().extend(cache, rows, tokens)


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Tell whether the condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def metric(metrics: ServingMetrics, name: str, **labels: str) -> float:
    """Return the sum of the samples that have the labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@contextmanager
def service_of(
    model: LanguageModel,
    *,
    tokenizer: Tokenizer = TOKENIZER,
    engine: EngineLimits | None = None,
    limits: ServiceLimits | None = None,
    defaults: GenerationDefaults = UNSAID,
    observer: EngineObserver | None = None,
) -> Iterator[tuple[ChatService, Engine]]:
    """Run an engine for the duration of the block."""
    running = Engine(model, engine or EngineLimits(slots=4, slot_tokens=4096), observer)
    thread = running.start()
    try:
        yield ChatService(running, tokenizer, ["scripted", "alias"], limits, defaults), running
    finally:
        running.stop()
        thread.join(timeout=10)
        assert not thread.is_alive()


@frozen
class Served:
    """A running server and what is behind it."""

    url: str
    engine: Engine
    lifecycle: Lifecycle
    metrics: ServingMetrics


@contextmanager
def serving(
    model: LanguageModel,
    *,
    tokenizer: Tokenizer = TOKENIZER,
    engine: EngineLimits | None = None,
    limits: ServiceLimits | None = None,
    defaults: GenerationDefaults = UNSAID,
    access: AccessPolicy | None = None,
    settings: HttpSettings | None = None,
) -> Iterator[Served]:
    """Run a server for the duration of the block."""
    metrics = ServingMetrics()
    setup = {"tokenizer": tokenizer, "engine": engine, "limits": limits, "defaults": defaults}
    with service_of(model, observer=metrics, **setup) as (service, running):
        lifecycle = Lifecycle()
        lifecycle.ready(service)
        metrics.watch(service.stats)
        app = build_app(lifecycle, access or AccessPolicy(), metrics, settings or HttpSettings())
        server = HttpServer(app, bind(Address("127.0.0.1", 0)))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
        thread.start()
        try:
            yield Served(server.url, running, lifecycle, metrics)
        finally:
            server.stop()
            thread.join(timeout=15)
            assert not thread.is_alive()

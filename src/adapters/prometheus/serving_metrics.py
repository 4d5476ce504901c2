"""Count and time what a serving engine and its servers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from glm3.domain.ports.engine_observer import EngineStats

__all__ = ["ServingMetrics"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SPEEDS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
_ROWS = (1, 2, 4, 8, 16, 32, 64)


class ServingMetrics:
    """Watch an engine; see :class:`glm3.domain.ports.engine_observer.EngineObserver`."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"glm3_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"glm3_{name}", text, buckets=buckets, registry=registry)

        self._requests = counter("requests", "Requests that ended, by outcome.", "outcome")
        self._http = counter("http_requests", "HTTP responses, by route and status.", "route", "status")
        self._grpc = counter("grpc_requests", "gRPC calls that ended, by method and code.", "method", "code")
        self._generated = counter("generated_tokens", "Tokens produced.")
        self._prompts = counter("prompt_tokens", "Prompt tokens of started requests.")
        self._cached = counter("cached_prompt_tokens", "Prompt tokens that were in the KV cache already.")
        self._computed = counter("computed_prompt_tokens", "Prompt tokens the model has computed.")
        self._waited = histogram("queue_seconds", "From submission to the start.")
        self._first = histogram("time_to_first_token_seconds", "From submission to the first token.")
        self._total = histogram("request_seconds", "From submission to the end.")
        self._speed = histogram("tokens_per_second", "Answer tokens over the whole request's time.", _SPEEDS)
        self._steps = histogram("step_seconds", "One call of the model.")
        self._rows = histogram("step_rows", "Rows computed in one call of the model.", _ROWS)

    def watch(self, stats: Callable[[], EngineStats | None]) -> None:
        """Read ``stats`` whenever the metrics are read; None before the engine is there."""
        self._registry.register(_Gauges(stats))

    def started(self, prompt_tokens: int, cached_tokens: int, waited: float) -> None:
        self._prompts.inc(prompt_tokens)
        self._cached.inc(cached_tokens)
        self._waited.observe(waited)

    def first_token(self, seconds: float) -> None:
        self._first.observe(seconds)

    def stepped(self, rows: int, prompt_tokens: int, new_tokens: int, seconds: float) -> None:
        self._generated.inc(new_tokens)
        self._computed.inc(prompt_tokens)
        self._rows.observe(rows)
        self._steps.observe(seconds)

    def ended(self, outcome: str, completion_tokens: int, seconds: float) -> None:
        self._requests.labels(outcome).inc()
        self._total.observe(seconds)
        if completion_tokens and seconds > 0:
            self._speed.observe(completion_tokens / seconds)

    def responded(self, route: str, status: int) -> None:
        """Count one HTTP response."""
        self._http.labels(route, str(status)).inc()

    def called(self, method: str, code: str) -> None:
        """Count one gRPC call."""
        self._grpc.labels(method, code).inc()

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, stats: Callable[[], EngineStats | None]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[GaugeMetricFamily]:
        stats = self._stats()
        yield GaugeMetricFamily("glm3_ready", "Whether the model is loaded.", value=float(stats is not None))
        if stats is None:
            return
        yield GaugeMetricFamily("glm3_running_requests", "Requests being answered.", value=stats.running)
        yield GaugeMetricFamily("glm3_waiting_requests", "Requests in the queue.", value=stats.waiting)
        yield GaugeMetricFamily("glm3_slots", "Requests that can be answered at once.", value=stats.slots)
        yield GaugeMetricFamily("glm3_kv_tokens", "Tokens whose blocks are taken.", value=stats.kv_tokens)
        yield GaugeMetricFamily("glm3_kv_capacity", "Tokens it can hold.", value=stats.kv_capacity)

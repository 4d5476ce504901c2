"""``glm3 serve``: answer others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glm3.entrypoints.cli.command import settings_of
from glm3.entrypoints.cli.options import (
    Adapter,
    Dtype,
    Kernels,
    KVCache,
    Model,
    Precision,
    Quant,
    Threads,
    load_options,
)

if TYPE_CHECKING:
    from glm3.application.load_model import LoadedModel
    from glm3.application.serving.service import ChatService
    from glm3.domain.model_config import ModelConfig

__all__ = ["EPILOG", "serve"]

EPILOG = """\
\b
Examples:
  glm3 serve                                     the embedded model at http://127.0.0.1:8000/v1
  glm3 serve -m ./chatglm3-6b --quant int4 --slots 8
  GLM3_TOKEN=$(openssl rand -hex 32) glm3 serve --http 0.0.0.0:8000
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{"messages": [{"role": "user", "content": "你好"}]}'
"""

_GIB = 2**30
_MIB = 2**20


def serve(
    context: typer.Context,
    model: Model = "tiny",
    adapter: Adapter = None,
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the OpenAI-compatible server listens.")
    ] = "127.0.0.1:8000",
    model_name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="What requests call the model; repeat for several names."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Lines 'name: token' of those who may ask; GLM3_TOKEN holds a single token."),
    ] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Listen at a public address without tokens.")
    ] = False,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Requests answered at once. [default: as --kv-memory allows]")
    ] = None,
    slot_tokens: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a prompt and its answer. [default: the model's]")
    ] = None,
    kv_memory: Annotated[
        float,
        typer.Option(min=0.001, metavar="GIB", help="Memory for the KV cache where --slots is not given."),
    ] = 4.0,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait for a slot.")] = 256,
    default_max_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer where the request does not say.")
    ] = 1024,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer a request may ask for.")
    ] = None,
    max_prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Longest prompt in tokens.")] = None,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds a request may take.")] = 600.0,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Requests a minute of each client. [default: no limit]")
    ] = None,
    max_body: Annotated[float, typer.Option(min=0.01, metavar="MIB", help="Largest request body.")] = 4.0,
    cors_origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Pages of this origin may ask; repeatable.")
    ] = None,
    log_content: Annotated[
        bool, typer.Option("--log-content", help="Write prompts and answers to the log.")
    ] = False,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="How long running answers may go on after SIGTERM.")
    ] = 30.0,
    kernels: Kernels = "auto",
    dtype: Dtype = Precision.float32,
    threads: Threads = None,
    quant: Quant = None,
    kv_cache: KVCache = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No notes.")] = False,
) -> None:
    """Serve a model to others over HTTP, as OpenAI's API.

    Requests are answered together, each as if it were alone. Without a token only this machine is served.
    SIGTERM lets running answers end first.
    """
    import asyncio

    from glm3.application.serving.access import AccessPolicy
    from glm3.application.serving.lifecycle import Lifecycle
    from glm3.application.serving.limits import ServiceLimits
    from glm3.domain.engine.limits import EngineLimits, slots_within
    from glm3.entrypoints.cli.loading import container, open_model
    from glm3.entrypoints.cli.output import note
    from glm3.entrypoints.http.app import build_app
    from glm3.entrypoints.http.server import HttpServer
    from glm3.entrypoints.http.settings import HttpSettings
    from glm3.entrypoints.serving.address import Address, bind, check_exposure
    from glm3.entrypoints.serving.run import ServePlan, run
    from glm3.entrypoints.serving.tokens import read_tokens

    settings = settings_of(context)
    address = Address.parse(http, "--http")
    tokens = read_tokens(token_file)
    check_exposure(address, "--http", guarded=bool(tokens) or allow_anonymous)
    options = load_options(kernels, dtype, threads, quant, kv_cache)
    access = AccessPolicy(tokens, rate)
    lifecycle = Lifecycle()
    metrics = container(settings).serving_metrics()
    metrics.watch(lambda: None if (service := lifecycle.loaded()) is None else service.stats())
    http_settings = HttpSettings(
        body_bytes=int(max_body * _MIB),
        cors_origins=tuple(cors_origin or ()),
        loopback_only=address.is_loopback and not tokens,
        log_content=log_content,
    )
    server = HttpServer(build_app(lifecycle, access, metrics, http_settings), bind(address))

    def load() -> LoadedModel:
        return open_model(settings, model, options, adapter=adapter, quiet=quiet)

    def limits_for(config: ModelConfig) -> EngineLimits:
        tokens = min(slot_tokens or config.seq_length, config.seq_length)
        fitting = slots_within(int(kv_memory * _GIB), config, tokens, options.cache_format)
        return EngineLimits(slots=slots or fitting, slot_tokens=tokens, queue=queue)

    def announce(service: ChatService) -> None:
        if not quiet:
            stats = service.stats()
            note(
                f"{service.model.names[0]} at {server.url}/v1: {stats.slots} requests at once, "
                f"{service.model.context_tokens} tokens each"
            )

    plan = ServePlan(
        load=load,
        names=model_name or [Path(model).name or model],
        engine_limits=limits_for,
        service_limits=ServiceLimits(
            prompt_tokens=max_prompt_tokens,
            output_tokens=max_tokens,
            default_output_tokens=default_max_tokens,
            seconds=time_limit,
        ),
        observer=metrics,
        drain_seconds=drain_seconds,
        announce=announce,
    )

    async def main() -> None:
        await run(plan, lifecycle, [server])

    asyncio.run(main())

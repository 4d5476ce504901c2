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
    Lookup,
    Model,
    Precision,
    Quant,
    Threads,
    load_options,
)

if TYPE_CHECKING:
    from glm3.application.load_model import LoadedModel
    from glm3.application.serving.service import ChatService
    from glm3.domain.engine.limits import EngineLimits
    from glm3.domain.model_config import ModelConfig

__all__ = ["EPILOG", "serve"]

EPILOG = """\
\b
Examples:
  glm3 serve                                     the embedded model at http://127.0.0.1:8000/v1
  glm3 serve -m ./chatglm3-6b --quant int4 --slots 8
  GLM3_TOKEN=$(openssl rand -hex 32) glm3 serve --http 0.0.0.0:8000
  glm3 serve --grpc 0.0.0.0:50051 --grpc-tls-cert server.pem --grpc-tls-key server.key --token-file tokens
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
    grpc: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the gRPC server listens.")
    ] = "127.0.0.1:50051",
    no_http: Annotated[bool, typer.Option("--no-http", help="No HTTP server.")] = False,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="No gRPC server.")] = False,
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
        int | None, typer.Option(min=1, help="Most requests answered at once. [default: by --kv-memory]")
    ] = None,
    slot_tokens: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a prompt and its answer. [default: the model's]")
    ] = None,
    kv_memory: Annotated[
        float,
        typer.Option(min=0.001, metavar="GIB", help="Memory of the KV cache, all requests together."),
    ] = 4.0,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait for a slot.")] = 256,
    default_max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longest answer where a request names none. [default: the model folder's, or 1024]",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer a request may ask for.")
    ] = None,
    max_prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Longest prompt in tokens.")] = None,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds a request may take.")] = 600.0,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Requests a minute of each client. [default: no limit]")
    ] = None,
    max_body: Annotated[
        float, typer.Option(min=0.01, metavar="MIB", help="Largest request body, or gRPC message.")
    ] = 4.0,
    cors_origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Pages of this origin may ask; repeatable.")
    ] = None,
    grpc_tls_cert: Annotated[
        Path | None, typer.Option(metavar="PEM", help="The gRPC server's certificate: encrypt.")
    ] = None,
    grpc_tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="The certificate's key.")] = None,
    grpc_client_ca: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Let in gRPC clients with a certificate of this authority only."),
    ] = None,
    grpc_keepalive: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="When a silent gRPC client is asked for a sign.")
    ] = 60.0,
    sessions: Annotated[int, typer.Option(min=0, help="gRPC sessions kept at once.")] = 1024,
    session_idle: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="When an unused session is forgotten.")
    ] = 1800.0,
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
    lookup: Lookup = True,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No notes.")] = False,
) -> None:
    """Serve a model to others: over HTTP as OpenAI's API, and over gRPC.

    Requests are answered together, each as if it were alone. Without a token only this machine is served.
    SIGTERM lets running answers end first.
    """
    import asyncio

    from glm3.application.serving.lifecycle import Lifecycle
    from glm3.application.serving.limits import ServiceLimits
    from glm3.application.serving.sessions import SessionLimits
    from glm3.domain.engine.limits import limits_within
    from glm3.entrypoints.cli.frontends import FrontendOptions
    from glm3.entrypoints.cli.loading import container, open_model
    from glm3.entrypoints.cli.output import note
    from glm3.entrypoints.serving.open_files import allow_open_files
    from glm3.entrypoints.serving.run import ServePlan, run
    from glm3.entrypoints.serving.tokens import read_tokens

    settings = settings_of(context)
    frontend_options = FrontendOptions(
        http=None if no_http else http,
        grpc=None if no_grpc else grpc,
        tokens=read_tokens(token_file),
        allow_anonymous=allow_anonymous,
        rate=rate,
        body_bytes=int(max_body * _MIB),
        cors_origins=tuple(cors_origin or ()),
        certificate=grpc_tls_cert,
        key=grpc_tls_key,
        client_ca=grpc_client_ca,
        keepalive_seconds=grpc_keepalive,
        sessions=SessionLimits(sessions=sessions, idle_seconds=session_idle),
        log_content=log_content,
    )
    frontend_options.check()
    options = load_options(kernels, dtype, threads, quant, kv_cache)
    lifecycle = Lifecycle()
    metrics = container(settings).serving_metrics()
    metrics.watch(lambda: None if (service := lifecycle.loaded()) is None else service.stats())
    urls: list[str] = []

    def load() -> LoadedModel:
        return open_model(settings, model, options, adapter=adapter, quiet=quiet)

    def limits_for(config: ModelConfig) -> EngineLimits:
        budget = int(kv_memory * _GIB)
        return limits_within(
            budget,
            config,
            options.cache_format,
            slots=slots,
            slot_tokens=slot_tokens,
            queue=queue,
            lookup=lookup,
        )

    def announce(service: ChatService) -> None:
        if not quiet:
            stats = service.stats()
            for url in urls[1:]:
                note(f"listening at {url}")
            note(
                f"{service.model.names[0]} at {urls[0]}: {stats.slots} requests at once, "
                f"{service.model.context_tokens} tokens each, {stats.kv_capacity} together"
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
        frontends = frontend_options.open(lifecycle, metrics)
        urls.extend(f"{one.url}/v1" if one.url.startswith("http") else one.url for one in frontends)
        await run(plan, lifecycle, frontends)

    allow_open_files()
    asyncio.run(main())

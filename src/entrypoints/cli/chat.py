"""``glm3 chat``: talk to a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    sampling_options,
)

if TYPE_CHECKING:
    from glm3.application.chat import ChatSession

__all__ = ["EPILOG", "chat"]

EPILOG = """\
\b
Examples:
  glm3 chat                                    a conversation with the embedded model; /help lists commands
  glm3 chat -p 你好                             one answer
  glm3 chat -p "类型#裙*颜色#红色" --greedy       the most probable answer, always the same
  cat text.txt | glm3 chat -p "总结："            standard input is appended to the prompt
  glm3 chat -m ./chatglm3-6b -s "You are terse."
  glm3 chat -m ./chatglm3-6b --adapter ./output/adapter
  glm3 chat -m ./chatglm3-6b --quant int4      in 3.5 GB of memory instead of 25
  glm3 chat --tools tools.json -p "北京天气" --json
  glm3 chat -m ./chatglm3-6b --tool calculator --tool clock
                                               the model may call these; you are asked before each call
"""


def chat(
    context: typer.Context,
    model: Model = "tiny",
    adapter: Adapter = None,
    prompt: Annotated[str | None, typer.Option("-p", "--prompt", help="Answer this and leave.")] = None,
    system: Annotated[str | None, typer.Option("-s", "--system", help="Text of the system message.")] = None,
    tools: Annotated[
        Path | None, typer.Option(help="JSON list of tools to offer: name, description, parameters.")
    ] = None,
    tool: Annotated[
        list[str] | None, typer.Option(help="Let the model call this: calculator or clock. Repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Run calls of --tool without asking.")] = False,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer in tokens.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Above 0; higher is bolder. [default: 0.8]")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Keep the likeliest tokens of this mass. [default: 0.8]")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Keep this many tokens; 0 keeps all. [default: 0]")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1 discourages repeating. [default: 1]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Make sampling repeatable.")] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the likeliest token, do not sample.")
    ] = False,
    trim: Annotated[
        bool,
        typer.Option("--trim", help="Drop the oldest turns when the context is full (default: an error)."),
    ] = False,
    kernels: Kernels = "auto",
    dtype: Dtype = Precision.float32,
    threads: Threads = None,
    quant: Quant = None,
    kv_cache: KVCache = None,
    lookup: Lookup = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object (with -p or piped input).")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print the answer only.")] = False,
) -> None:
    """Talk to a model, at the terminal or with one prompt.

    At a terminal without -p this is a conversation; otherwise the prompt is answered once. Sampling is
    that of ChatGLM3's own chat (temperature 0.8, top-p 0.8) where neither an option here nor the model's
    generation_config.json says otherwise.
    """
    from glm3.application.chat import ChatSession
    from glm3.entrypoints.cli.loading import open_model
    from glm3.entrypoints.cli.tools import tool_caller
    from glm3.entrypoints.cli.transcript import load_tools

    text = _one_prompt(prompt)
    options, named = sampling_options(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        seed=seed,
        greedy=greedy,
        lookup=lookup,
    )
    _check(text, as_json)
    caller = tool_caller(tool or [], allow_all=yes)
    offered = [] if tools is None else load_tools(tools)
    loading = load_options(kernels, dtype, threads, quant, kv_cache)
    loaded = open_model(settings_of(context), model, loading, adapter=adapter, quiet=quiet)
    session = ChatSession(
        loaded.model,
        loaded.tokenizer,
        system=system,
        tools=offered,
        options=loaded.generation.chat_options(loaded.tokenizer.special_tokens, options, named),
        trim=trim,
        caller=caller,
    )
    if text is None:
        _converse(session, model, quiet)
    else:
        _answer_once(session, text, as_json, quiet)


def _one_prompt(prompt: str | None) -> str | None:
    """Return what to answer once, or None for a conversation."""
    if sys.stdin is None or sys.stdin.isatty():
        return prompt
    piped = sys.stdin.read().rstrip("\n")
    return "\n".join(part for part in (prompt, piped) if part)


def _check(text: str | None, as_json: bool) -> None:
    from glm3.domain.errors import UsageError

    if text is None and as_json:
        raise UsageError("--json needs a prompt", hint="give one with -p, or pipe it in")
    if text is not None and not text.strip():
        raise UsageError("the prompt is empty", hint="give one with -p, or pipe it in")


def _converse(session: ChatSession, model: str, quiet: bool) -> None:
    from glm3.entrypoints.cli.line_editor import LineEditor
    from glm3.entrypoints.cli.output import note
    from glm3.entrypoints.cli.repl import chat_loop
    from glm3.entrypoints.paths import state_folder

    if not quiet:
        note(f"{model}: type a message, /help for commands, Ctrl-D to leave")
    chat_loop(session, LineEditor(state_folder() / "chat_history"))


def _answer_once(session: ChatSession, text: str, as_json: bool, quiet: bool) -> None:
    from glm3.domain.conversation import FinishReason
    from glm3.entrypoints.cli.output import answer_json, note
    from glm3.entrypoints.cli.repl import stream_answer
    from glm3.entrypoints.cli.replies import reply_to_json

    if as_json:
        reply = session.send(text)
        answer_json({**reply_to_json(reply), "timings": _timings(session)})
    else:
        reply = stream_answer(session, text)
    stats = session.last_stats
    if not quiet and not as_json and stats is not None:
        note(
            f"{stats.prompt_tokens} + {stats.completion_tokens} tokens, first after "
            f"{stats.first_token_seconds:.2f} s, then {stats.tokens_per_second:.1f} tokens/s"
        )
    if reply.finish_reason is FinishReason.CANCELLED:
        raise KeyboardInterrupt


def _timings(session: ChatSession) -> dict[str, Any] | None:
    stats = session.last_stats
    return (
        None
        if stats is None
        else {
            "first_token_seconds": round(stats.first_token_seconds, 4),
            "total_seconds": round(stats.total_seconds, 4),
            "tokens_per_second": round(stats.tokens_per_second, 2),
        }
    )

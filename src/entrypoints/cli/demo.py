"""``glm3 demo``: what the embedded model can do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glm3.entrypoints.cli.command import settings_of

if TYPE_CHECKING:
    from glm3.application.chat import ChatSession

__all__ = ["EPILOG", "demo"]

EPILOG = """\
\b
Examples:
  glm3 demo
  glm3 chat          go on yourself
"""
QUESTIONS = ("你好", "你会什么", "类型#裙*颜色#红色*风格#复古*裙长#长裙", "一天有几个小时")
WEATHER_QUESTION = "青岛今天天气怎么样"
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "查询一个城市的天气",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "城市名"}},
        "required": ["city"],
    },
}


def demo(
    context: typer.Context,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads to compute with. [default: all cores]", show_default=False),
    ] = None,
) -> None:
    """Show what the embedded model can do: greet, write an advert, answer, call a tool.

    Nothing is downloaded. Answers are the model's own, always the likeliest ones.
    """
    from glm3.application.chat import ChatSession
    from glm3.domain.ports.backend import LoadOptions
    from glm3.entrypoints.cli.loading import open_model
    from glm3.entrypoints.cli.output import note

    loaded = open_model(settings_of(context), "tiny", LoadOptions(threads=threads))
    _talk(ChatSession(loaded.model, loaded.tokenizer), QUESTIONS)
    note("\nwith a tool:")
    _ask_about_the_weather(ChatSession(loaded.model, loaded.tokenizer, tools=[WEATHER]))
    note("\nnow you: glm3 chat")


def _talk(session: ChatSession, questions: tuple[str, ...]) -> None:
    from glm3.entrypoints.cli.output import answer, note
    from glm3.entrypoints.cli.repl import stream_answer

    for question in questions:
        session.clear()  # each on its own: so small a model loses its thread in longer talks
        answer(f"you>  {question}\nglm3> ", end="")
        stream_answer(session, question)
    stats = session.last_stats
    if stats is not None:
        note(f"({stats.tokens_per_second:.0f} tokens/s)")


def _ask_about_the_weather(session: ChatSession) -> None:
    """Answer the model's call as a program would: with a made-up measurement."""
    from glm3.domain.conversation import Role
    from glm3.entrypoints.cli.output import answer
    from glm3.entrypoints.cli.repl import stream_answer

    answer(f"you>  {WEATHER_QUESTION}\nglm3> ", end="")
    reply = stream_answer(session, WEATHER_QUESTION)
    if reply.tool_call is None:
        return
    result = json.dumps({**reply.tool_call.arguments, "weather": "晴", "temperature": 22}, ensure_ascii=False)
    answer(f"tool>  {result}\nglm3> ", end="")
    stream_answer(session, result, Role.OBSERVATION)

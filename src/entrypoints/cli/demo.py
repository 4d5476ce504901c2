"""``glm3 demo``: what the embedded model can do, and what finetuning teaches it."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
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
    talk_only: Annotated[
        bool, typer.Option("--talk-only", help="Only talk; leave out the training, which takes a minute.")
    ] = False,
) -> None:
    """Show the main job on the embedded model: chat, call a tool; finetune, merge, chat with the result.

    Two ranks train it together, and what each of them saves is merged. Scores before and after show what was
    learned. Nothing is downloaded and nothing is left behind. Answers are the model's own, always the
    likeliest ones.
    """
    from glm3.application.chat import ChatSession
    from glm3.domain.ports.backend import LoadOptions
    from glm3.entrypoints.cli.demo_training import goods, teach
    from glm3.entrypoints.cli.loading import open_model
    from glm3.entrypoints.cli.output import note

    settings = settings_of(context)
    loaded = open_model(settings, "tiny", LoadOptions(threads=threads))
    _talk(ChatSession(loaded.model, loaded.tokenizer), QUESTIONS)
    note("\nwith a tool:")
    _ask_about_the_weather(ChatSession(loaded.model, loaded.tokenizer, tools=[WEATHER]))
    if not talk_only:
        with TemporaryDirectory(prefix="glm3-demo-") as folder:
            merged = open_model(settings, str(teach(settings, Path(folder))))
            _talk(ChatSession(merged.model, merged.tokenizer), (goods(),))
            note("\nthe files named above were temporary and are removed")
    note("\nnow you: glm3 chat, glm3 finetune --config configs/glm3/glm3_tiny.yaml")


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

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
    from glm3.domain.run_config import RunConfig
    from glm3.entrypoints.cli.settings import Settings

__all__ = ["EPILOG", "demo"]

EPILOG = """\
\b
Examples:
  glm3 demo
  glm3 chat          go on yourself
"""
QUESTIONS = ("你好", "你会什么", "类型#裙*颜色#红色*风格#复古*裙长#长裙", "一天有几个小时")
SCORED_ROWS = 20
ADAPTER: dict[str, Any] = {
    "pet_type": "lora",
    "lora_rank": 64,
    "lora_alpha": 128,
    "lora_dropout": 0,
    "target_modules": ".*",
}
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

    Scores before and after show what was learned. Nothing is downloaded and nothing is left behind. Answers
    are the model's own, always the likeliest ones.
    """
    from glm3.application.chat import ChatSession
    from glm3.domain.ports.backend import LoadOptions
    from glm3.entrypoints.cli.loading import open_model
    from glm3.entrypoints.cli.output import note

    settings = settings_of(context)
    loaded = open_model(settings, "tiny", LoadOptions(threads=threads))
    _talk(ChatSession(loaded.model, loaded.tokenizer), QUESTIONS)
    note("\nwith a tool:")
    _ask_about_the_weather(ChatSession(loaded.model, loaded.tokenizer, tools=[WEATHER]))
    if not talk_only:
        with TemporaryDirectory(prefix="glm3-demo-") as folder:
            _finetune(settings, Path(folder))
    note("\nnow you: glm3 chat, glm3 finetune --config configs/glm3/glm3_tiny.yaml")


def _finetune(settings: Settings, folder: Path) -> None:
    """Teach an adapter the adverts of goods that the model never wrote about; merge it, score, and chat."""
    from glm3.application.chat import ChatSession
    from glm3.entrypoints.cli.evaluate import run_evaluation
    from glm3.entrypoints.cli.finetune import Layout, run_finetune
    from glm3.entrypoints.cli.loading import container, open_model
    from glm3.entrypoints.cli.output import note
    from glm3.entrypoints.paths import resources_folder

    def run(load_checkpoint: str) -> RunConfig:
        overrides = [
            f"output_dir={folder}",
            f"load_checkpoint={load_checkpoint}",
            "eval_epoch_interval=-1",
            "runner_config.epochs=3",
            f"eval_dataset.data_loader.num_samples={SCORED_ROWS}",
            *(f"model.model_config.pet_config.{key}={value}" for key, value in ADAPTER.items()),
            "lr_schedule.learning_rate=3e-3",
        ]
        return (
            container(settings).run_configs().read(resources_folder() / "configs/glm3_tiny.yaml", overrides)
        )

    note(f"\nscores on {SCORED_ROWS} adverts of goods that it does not know:")
    run_evaluation(settings, run("tiny"), layout=Layout.chat, quiet=True)
    note("\nfinetuning a LoRA adapter on 600 others:")
    run_finetune(settings, run("tiny"), layout=Layout.chat)
    merged = folder / "merged"
    _merge(settings, folder / "adapter", merged)
    note("\nscores of the merged model:")
    run_evaluation(settings, run(str(merged)), layout=Layout.chat, quiet=True)
    rows = (resources_folder() / "data/adverts-dev.json").read_text("utf-8").splitlines()
    tuned = open_model(settings, str(merged))
    _talk(ChatSession(tuned.model, tuned.tokenizer), (json.loads(rows[0])["content"],))


def _merge(settings: Settings, adapter: Path, target: Path) -> None:
    """Fold the adapter into the weights it was trained on, as ``glm3 merge`` does."""
    from glm3.application.merge_adapter import MergeAdapterRequest, merge_adapter
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.output import answer, note

    note("\nmerging it into the model:")
    services = container(settings)
    request = MergeAdapterRequest(adapter=adapter, target=target, verify=True)
    result = merge_adapter(request, services.sources(), services.checkpoint_stores())
    answer(f"merged {result.tensors} tensors, {', '.join(result.notes)}")


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

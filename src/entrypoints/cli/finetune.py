"""``glm3 finetune``: train a model as a YAML file says."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glm3.entrypoints.cli.command import settings_of
from glm3.entrypoints.cli.output import answer, note

if TYPE_CHECKING:
    from glm3.domain.run_config import RunConfig
    from glm3.entrypoints.cli.settings import Settings

__all__ = ["EPILOG", "Layout", "finetune", "run_finetune"]

EPILOG = """\
\b
Examples:
  glm3 finetune --config configs/glm3/glm3_tiny.yaml
  glm3 finetune --config configs/glm3/glm3_tiny.yaml runner_config.epochs=3 output_dir=./mine
  glm3 finetune --config configs/glm3/glm3_tiny.yaml resume_training=True load_checkpoint=last
"""


class Layout(StrEnum):
    """How a prompt and its answer are laid out."""

    bare = "bare"
    chat = "chat"


def finetune(
    context: typer.Context,
    config: Annotated[str, typer.Option("--config", metavar="FILE", help="The YAML file of the run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of single keys.")
    ] = None,
    layout: Annotated[
        Layout, typer.Option(help="Rows of prompt and answer: bare as in the model card, or as a chat.")
    ] = Layout.bare,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a data set with a row that would be skipped.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Start although the memory planned for is not there.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write curves for TensorBoard (needs tensorboardX).")
    ] = False,
    curve: Annotated[
        bool, typer.Option("--curve", help="Also draw the loss as log/rank_0/loss.png (needs matplotlib).")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Train a model, or adapters of it, on rows of data.

    Everything that can be checked is checked before the first step. Checkpoints, logs and metrics go to
    output_dir; the finished model lies in its folder model. Ctrl-C ends the run after the current step,
    saved; a second Ctrl-C ends it at once.
    """
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.run_mindformer import find_config

    settings = settings_of(context)
    run = container(settings).run_configs().read(find_config(config), overrides or [])
    run_finetune(
        settings,
        run,
        layout=layout,
        strict=strict,
        ignore_memory=force,
        tensorboard=tensorboard,
        curve=curve,
        quiet=quiet,
    )


def run_finetune(
    settings: Settings,
    config: RunConfig,
    *,
    layout: Layout = Layout.bare,
    strict: bool = False,
    ignore_memory: bool = False,
    tensorboard: bool = False,
    curve: bool = False,
    quiet: bool = False,
) -> None:
    """Train as a configuration says and print the closing report; of several ranks, rank 0 prints it.

    The process that msrun starts as its scheduler serves the ranks instead. With ``only_save_strategy``
    strategy files are all that is written.

    Raises:
        Glm3Error: see :meth:`glm3.application.finetune.FinetuneService.run`.
    """
    from glm3.application.finetune import FinetuneRequest
    from glm3.domain.training.encoding import PairLayout
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.progress import counting
    from glm3.entrypoints.cli.strategies import write_strategies
    from glm3.entrypoints.cli.training_display import training_display

    if os.environ.get("MS_ROLE") == "MS_SCHED":
        from glm3.adapters.mindspore.communicator import serve_as_scheduler

        serve_as_scheduler()
        return
    if config.only_save_strategy:
        write_strategies(settings, config)
        return
    services = container(settings).training().with_layout(PairLayout(layout.value))
    first = services.communicator.rank == 0
    quiet = quiet or not first
    with counting("rows encoded", quiet=quiet) as count, _stop_on_interrupt() as stop:
        service = services.reporting(count).finetuning(tensorboard=tensorboard, curve=curve)
        report = service.run(
            FinetuneRequest(config=config, strict=strict, ignore_memory=ignore_memory, stop=stop),
            training_display(quiet=quiet),
        )
    for line in report.lines() if first else ():
        answer(line)


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Lend a question that Ctrl-C and a termination signal answer with yes; a second one interrupts."""
    asked = False

    def ask(number: int, _frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        note(f"{signal.Signals(number).name}: ending after this step, saved (again: at once)")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

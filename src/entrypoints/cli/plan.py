"""``glm3 plan``: the memory of a run before anything is loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from glm3.entrypoints.cli.command import settings_of
from glm3.entrypoints.cli.output import answer, answer_json, note

__all__ = ["EPILOG", "plan"]

EPILOG = """\
\b
Examples:
  glm3 plan --config configs/glm3/glm3_tiny.yaml
  glm3 plan --config configs/glm3/run_glm3_6b_finetune_800T_A2_64G.yaml
  glm3 plan --config configs/glm3/lora_glm3_6b.yaml context.device_target=CPU runner_config.batch_size=1
"""


def plan(
    context: typer.Context,
    config: Annotated[str, typer.Option("--config", metavar="FILE", help="The YAML file of the run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of single keys.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print the memory that each rank of a training run takes, and fail if it does not fit.

    Figures come from the configuration alone. For the CPU they are fitted to measured runs; for Ascend they
    are computed by the same rules and not measured.
    """
    from glm3.application.plan import plan_run
    from glm3.domain.training.memory_plan import DEVICE
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.run_mindformer import find_config

    parts = container(settings_of(context))
    run = parts.run_configs().read(find_config(config), overrides or [])
    found = plan_run(run, parts.sources(), parts.checkpoint_stores(), parts.host().facts())
    if as_json:
        values = {**found.parts(), "total": found.total, "available": found.available, "fits": found.fits}
        answer_json({"place": found.place, **values})
    else:
        for name, size in {**found.parts(), "total": found.total}.items():
            answer(f"{name:<12}{size / 1e9:10.2f} GB")
        room = "unknown" if found.available is None else f"{found.available / 1e9:.2f} GB"
        answer(f"{'available':<12}{room:>13}  ({found.place})")
        if found.place == DEVICE:
            note("note: what graph, workspace and HCCL take on a card is not known and not counted")
    found.require_fit()

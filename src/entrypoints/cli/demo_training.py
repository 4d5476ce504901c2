"""The second half of ``glm3 demo``: train with two ranks, merge what they saved, score and chat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from glm3.entrypoints.cli.output import answer, note

if TYPE_CHECKING:
    from glm3.domain.host import HostFacts
    from glm3.domain.run_config import RunConfig
    from glm3.entrypoints.cli.settings import Settings

__all__ = ["goods", "lacking", "teach"]

CONFIG = "configs/glm3_tiny.yaml"
SCORED_ROWS = 20
RANKS = 2
TRAINING = ("eval_epoch_interval=-1", "lr_schedule.learning_rate=2e-3")
ALONE = ("runner_config.batch_size=8",)
SHARED = (
    f"runner_config.batch_size={8 // RANKS}",
    "use_parallel=True",
    f"parallel_config.data_parallel={RANKS}",
    "parallel.enable_parallel_optimizer=True",
)
JOIN_SECONDS = 60
INTERRUPTED = 130


def teach(settings: Settings, folder: Path) -> Path:
    """Teach the model the adverts of goods that it never wrote about; return the folder of what it became.

    Two ranks share each batch and the optimizer, and each saves its part; where the machine has no room for
    a second one, this process trains alone. The parts are merged in either case.

    Raises:
        typer.Exit: the training was interrupted.
    """
    from glm3.application.plan import plan_run
    from glm3.entrypoints.cli.finetune import Layout, run_finetune
    from glm3.entrypoints.cli.loading import container

    services = container(settings)
    facts = services.host().facts()
    note(f"\nscores on {SCORED_ROWS} adverts of goods that it does not know:")
    _score(settings, "tiny", folder)
    run = _run(settings, [*TRAINING, *SHARED])
    plan = plan_run(run, services.sources(), services.checkpoint_stores(), facts)
    reason = lacking(facts, plan.total)
    trained = None if reason else _train_together(settings, folder / "output")
    if trained is None:
        note(f"\nfinetuning on 600 others in one process: {reason or 'the ranks did not come to an end'}")
        trained = folder / "alone"
        run_finetune(
            settings, _run(settings, [*TRAINING, *ALONE, f"output_dir={trained}"]), layout=Layout.chat
        )
    if not (trained / "model").is_dir():
        note("there is nothing to show of half a training")
        raise typer.Exit(INTERRUPTED)
    merged = _merge(settings, trained, folder / "merged")
    note("\nscores of the merged model:")
    _score(settings, str(merged), folder)
    return merged


def lacking(facts: HostFacts, bytes_a_rank: int) -> str | None:
    """Say what a machine has too little of for two ranks, None if nothing."""
    if facts.cores < RANKS:
        return "this machine lends it one core"
    needed, free = RANKS * bytes_a_rank, facts.memory_available
    if needed > free:
        return f"{RANKS} ranks take {needed / 1e9:.1f} GB, free are {free / 1e9:.1f} GB"
    return None


def goods() -> str:
    """Return what an advert of unknown goods should say: the first row that is scored."""
    from glm3.entrypoints.paths import resources_folder

    rows = (resources_folder() / "data/adverts-dev.json").read_text("utf-8").splitlines()
    return str(json.loads(rows[0])["content"])


def _run(settings: Settings, overrides: list[str]) -> RunConfig:
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.paths import resources_folder

    return container(settings).run_configs().read(resources_folder() / CONFIG, overrides)


def _score(settings: Settings, model: str, folder: Path) -> None:
    from glm3.entrypoints.cli.evaluate import run_evaluation
    from glm3.entrypoints.cli.finetune import Layout

    rows = f"eval_dataset.data_loader.num_samples={SCORED_ROWS}"
    run = _run(settings, [f"output_dir={folder}", f"load_checkpoint={model}", rows])
    run_evaluation(settings, run, layout=Layout.chat, quiet=True)


def _train_together(settings: Settings, output: Path) -> Path | None:
    """Train as ``glm3 launch --workers 2 finetune`` does; None if a rank did not come to an end."""
    from glm3.entrypoints.cli.launching import LaunchOptions, run_launch
    from glm3.entrypoints.paths import resources_folder

    note(f"\nfinetuning on 600 others with {RANKS} ranks, which share the optimizer:")
    config = str(resources_folder() / CONFIG)
    overrides = (*TRAINING, *SHARED, f"output_dir={output}")
    output.mkdir()
    options = LaunchOptions(
        command=("finetune", "--config", config, "--layout", "chat", *overrides),
        folder=output,
        workers=RANKS,
        log_dir=output / "log",
        join_timeout=JOIN_SECONDS,
    )
    code = run_launch(settings, options)
    if code == INTERRUPTED:
        raise typer.Exit(code)
    return None if code else output


def _merge(settings: Settings, trained: Path, target: Path) -> Path:
    """Put the slices of the ranks together, as ``glm3 merge`` does, and return the folder of the model."""
    from glm3.application.merge_checkpoints import MergeRequest, merge_checkpoints
    from glm3.application.slice_targets import Selection
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.merge import summary

    note("\nmerging what the ranks have saved:")
    services = container(settings)
    strategy = trained / "strategy"
    request = MergeRequest(
        source=trained / "checkpoint",
        target=target,
        source_strategy=services.strategies().read(strategy) if strategy.is_dir() else None,
        prefix="tiny",
        select=Selection.WEIGHTS,
    )
    result = merge_checkpoints(request, services.checkpoint_stores())
    answer(summary(result))
    return result.files[0].parent

"""``glm3 eval``: score a model on rows of prompts and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glm3.entrypoints.cli.command import settings_of
from glm3.entrypoints.cli.finetune import Layout
from glm3.entrypoints.cli.output import answer, answer_json, note

if TYPE_CHECKING:
    from glm3.domain.run_config import RunConfig
    from glm3.entrypoints.cli.settings import Settings

__all__ = ["EPILOG", "evaluate", "run_evaluation"]

EPILOG = """\
\b
Examples:
  glm3 eval
  glm3 eval -m ./output/model --data AdvertiseGen/dev.json
  glm3 eval --config configs/glm3/glm3_tiny.yaml eval_dataset.data_loader.num_samples=50 --json
"""
DEFAULT_CONFIG = "glm3_tiny.yaml"
RESULT_NAME = "evaluation.json"


def evaluate(
    context: typer.Context,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of single keys.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="The YAML file. [default: the tiny one]")
    ] = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", metavar="MODEL", help="Weights; sets load_checkpoint.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Rows; sets eval_dataset.data_loader.dataset_dir."),
    ] = None,
    layout: Annotated[
        Layout, typer.Option(help="Prompts: bare as in the model card, or as a chat.")
    ] = Layout.bare,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help=f"Where results go. [default: {RESULT_NAME} in output_dir]"),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a data set with a row that would be skipped.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Answer the prompts of a data set and compare with its answers.

    Printed are ROUGE-1, -2 and -L (F1 on words, 0 to 100), BLEU-4 on characters (0 to 100) and on words
    (0 to 1), and loss and perplexity of the right answers. An empty answer counts as zero. All answers are
    written beside the scores as JSON.
    """
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.run_mindformer import find_config
    from glm3.entrypoints.paths import resources_folder

    settings = settings_of(context)
    path = find_config(config) if config else resources_folder() / "configs" / DEFAULT_CONFIG
    given = list(overrides or [])
    given += [f"load_checkpoint={model}"] if model else []
    given += [f"eval_dataset.data_loader.dataset_dir={data}"] if data else []
    run = container(settings).run_configs().read(path, given)
    run_evaluation(settings, run, layout=layout, output=output, strict=strict, as_json=as_json, quiet=quiet)


def run_evaluation(
    settings: Settings,
    config: RunConfig,
    *,
    layout: Layout = Layout.bare,
    output: Path | None = None,
    strict: bool = False,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Evaluate as a configuration says, print the scores, and write them with every answer.

    The ranks of a job share the rows out, and the first one prints and writes.

    Raises:
        Glm3Error: see :meth:`glm3.application.evaluation_setup.EvaluateService.run`.
    """
    from glm3.domain.training.encoding import PairLayout
    from glm3.entrypoints.cli.files import require_writable, write_text
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.progress import counting, progress

    service = container(settings).training().evaluation()
    first = service.communicator.rank == 0
    quiet = quiet or not first
    path = output or Path(config.output_dir) / RESULT_NAME
    if first:
        require_writable(path)
    with progress("downloading", quiet=quiet) as download, counting("rows answered", quiet=quiet) as count:
        result = service.run(
            config,
            layout=PairLayout(layout.value),
            strict=strict,
            progress=count,
            download=lambda file, done, total: download(done, total, file),
        )
    if not first:
        return
    for text in result.notes:
        note(f"note: {text}")
    write_text(path, json.dumps(result.to_json(), ensure_ascii=False, indent=2) + "\n")
    if as_json:
        answer_json(dict(result.scores))
    else:
        for name, score in result.scores.items():
            answer(f"{name}: {score:.4f}")
    note(f"{result.rows} rows in {result.seconds:.1f} s, {result.empty} empty answers; written to {path}")

"""``glm3 run``: the model card's ``run_mindformer.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glm3.entrypoints.cli.command import Command, settings_of
from glm3.entrypoints.cli.output import answer, note
from glm3.entrypoints.cli.run_flags import declare_flags, overrides_of, spread

if TYPE_CHECKING:
    from glm3.domain.run_config import RunConfig
    from glm3.entrypoints.cli.settings import Settings

__all__ = ["EPILOG", "RunCommand", "find_config", "run"]

EPILOG = """\
\b
Examples:
  glm3 run --config configs/glm3/predict_glm3_6b.yaml --run_mode predict \\
    --use_parallel=False --predict_data "你好"
  glm3 run --config configs/glm3/glm3_tiny.yaml --run_mode finetune --epochs 2
  glm3 run --config configs/glm3/glm3_tiny.yaml --run_mode predict --predict_data "你好" "你是谁"
  glm3 run --config configs/glm3/glm3_tiny.yaml --run_mode predict --predict_data prompts.txt \\
    --model.model_config.max_decode_length=64
"""
AVAILABLE = ("train", "finetune", "eval", "predict")


class RunCommand(Command):
    """Accept several words behind one flag, as argparse does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See :class:`typer.core.TyperCommand`."""
        return super().parse_args(ctx, spread(args))


@declare_flags
def run(
    context: typer.Context,
    config_name: Annotated[str, typer.Option("--config", metavar="FILE", help="The YAML file.")],
    predict_data: Annotated[
        list[str] | None,
        typer.Option("--predict_data", metavar="TEXT...", help="A text, several, or a file with one a line."),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--options", metavar="KEY=VALUE...", help="Overrides of single keys.")
    ] = None,
    **flags: Any,
) -> None:
    """Run a YAML file with the model card's flags: train, finetune, eval or predict.

    Every key of the file can also be set as --a.b.c=VALUE. predict prints its answers, prompts included,
    and writes them to text_generation_result.txt. What the file does not say of generation is as in
    generation_config.json beside the weights, if there is one.
    """
    from glm3.application.predict import require_prompts
    from glm3.domain.errors import UsageError
    from glm3.domain.run_config import check_for
    from glm3.entrypoints.cli.evaluate import run_evaluation
    from glm3.entrypoints.cli.finetune import run_finetune
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.prompts import looks_like_a_missing_file, prompts_of
    from glm3.entrypoints.cli.strategies import write_strategies

    config = (
        container(settings_of(context))
        .run_configs()
        .read(find_config(config_name), [*overrides_of(flags), *(options or []), *context.args])
    )
    if config.only_save_strategy:
        write_strategies(settings_of(context), config)
        return
    if config.run_mode in ("train", "finetune"):
        run_finetune(settings_of(context), config)
        return
    for notice in config.notices:
        note(f"note: {notice}")
    if config.run_mode == "eval":
        run_evaluation(settings_of(context), config)
        return
    if config.run_mode not in AVAILABLE:
        raise UsageError(
            "this run mode is not available yet",
            field="run_mode",
            expected=", ".join(AVAILABLE),
            found=config.run_mode,
            hint="--run_mode predict on the command line replaces the file's",
        )
    if config.context.device_target == "Ascend":
        note("note: context.device_target is Ascend; inference runs on the CPU")
    if predict_data and looks_like_a_missing_file(predict_data):
        note(f"note: there is no file {predict_data[0]}; this very text is the prompt")
    prompts = prompts_of(predict_data) if predict_data else list(config.input_data or ())
    if not prompts:
        raise UsageError("nothing to predict", hint="give --predict_data TEXT, or input_data in the file")
    require_prompts(prompts)
    check_for(config)
    _predict(settings_of(context), config, prompts)


def _predict(settings: Settings, config: RunConfig, prompts: list[str]) -> None:
    from glm3.application.predict import PredictRequest, predict_together
    from glm3.entrypoints.cli.files import require_writable
    from glm3.entrypoints.cli.loading import container, open_run
    from glm3.entrypoints.cli.prompts import write_result

    communicator = container(settings).communicator()
    path = Path(config.save_file)
    if communicator.rank == 0:
        require_writable(path)
    loaded = open_run(settings, config, communicator)
    request = PredictRequest(
        prompts=prompts,
        options=loaded.generation.run_options(
            loaded.source.config, config.model.given, loaded.tokenizer.special_tokens, config.seed
        ),
        batch_size=config.predict_batch_size,
    )
    texts = predict_together(
        request, loaded.model, loaded.tokenizer, communicator, lambda prediction: prediction.full_text
    )
    if communicator.rank:
        return  # the first rank tells it
    answer(str(texts))
    write_result(path, texts)
    note(f"written to {path}")


def find_config(name: str) -> Path:
    """Return the one file that ``name`` means, in the working directory or beside the started script.

    Raises:
        MissingFileError: there is none.
        UsageError: a pattern fits several.
    """
    from glm3.domain.errors import MissingFileError, UsageError

    for folder in (Path(), Path(sys.argv[0]).resolve().parent):
        path = folder / name
        found = [path] if path.is_file() else sorted(path.parent.glob(path.name))
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                "the pattern fits several files", field="--config", found=", ".join(map(str, found))
            )
    raise MissingFileError("no such file", path=name, hint="--config names a YAML file, as in configs/glm3")

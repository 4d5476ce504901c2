"""The flags of the model card's ``run_mindformer.py``: which configuration key each one sets.

Source: the command line of MindFormers' ``run_mindformer.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from glm3.domain.coercion import as_bool
from glm3.domain.errors import UsageError

__all__ = ["FLAGS", "Flag", "declare_flags", "overrides_of", "spread"]

MANY = ("--predict_data", "--options")
"""Flags that take every word up to the next flag."""


class Flag(NamedTuple):
    """A flag that sets one key of the configuration; ``kind`` is int, str or bool."""

    name: str
    key: str
    kind: type
    help: str


FLAGS = (
    Flag("run_mode", "run_mode", str, "train, finetune, eval, predict or export."),
    Flag("predict_batch_size", "predict_batch_size", int, "Texts answered together."),
    Flag("load_checkpoint", "load_checkpoint", str, "Weights: a file, a folder or a name."),
    Flag("use_parallel", "use_parallel", bool, "Use several devices."),
    Flag("device_target", "context.device_target", str, "Ascend or CPU."),
    Flag("device_id", "context.device_id", int, "Which device."),
    Flag("mode", "context.mode", int, "0 graph, 1 pynative."),
    Flag("seed", "seed", int, "Make random choices repeatable."),
    Flag("output_dir", "output_dir", str, "Root of all output."),
    Flag("train_dataset_dir", "train_dataset.data_loader.dataset_dir", str, "Training rows."),
    Flag("eval_dataset_dir", "eval_dataset.data_loader.dataset_dir", str, "Evaluation rows."),
    Flag("num_samples", "train_dataset.data_loader.num_samples", int, "Use this many training rows."),
    Flag("epochs", "runner_config.epochs", int, "Passes over the training rows."),
    Flag("batch_size", "runner_config.batch_size", int, "Rows per device and step."),
    Flag(
        "gradient_accumulation_steps",
        "runner_config.gradient_accumulation_steps",
        int,
        "Batches that share one update.",
    ),
    Flag("sink_mode", "runner_config.sink_mode", bool, "Let the device fetch its rows."),
    Flag("do_eval", "do_eval", bool, "Evaluate while training."),
    Flag("resume_training", "resume_training", str, "Continue a run: true, or a checkpoint's name."),
    Flag("auto_trans_ckpt", "auto_trans_ckpt", bool, "Re-slice load_checkpoint for this job."),
    Flag("src_strategy_path_or_dir", "src_strategy_path_or_dir", str, "How load_checkpoint is sliced."),
    Flag("only_save_strategy", "only_save_strategy", bool, "Write strategy files and leave."),
    Flag(
        "strategy_load_checkpoint",
        "parallel.strategy_ckpt_config.load_file",
        str,
        "Slicing to use instead of making one.",
    ),
    Flag("profile", "profile", bool, "Profile the run."),
    Flag("remote_save_url", "remote_save_url", str, "Where to upload the output."),
)


def declare_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Show the flags to typer as parameters of ``command``, which receives them as ``**flags``."""
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    command.__signature__ = inspect.Signature([*own, *map(_parameter, FLAGS)])  # type: ignore[attr-defined]
    return command


def _parameter(flag: Flag) -> inspect.Parameter:
    metavar = {bool: "true|false", int: "NUMBER", str: "TEXT"}[flag.kind]
    option = typer.Option(f"--{flag.name}", help=flag.help, metavar=metavar)
    annotation: Any = Annotated[int | None if flag.kind is int else str | None, option]
    return inspect.Parameter(flag.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def overrides_of(flags: Mapping[str, Any]) -> list[str]:
    """Return ``key=value`` for every flag that was given.

    Raises:
        UsageError: a flag that is true or false has another value.
    """
    return [
        f"{flag.key}={_checked(flag, flags[flag.name])}" for flag in FLAGS if flags.get(flag.name) is not None
    ]


def _checked(flag: Flag, value: Any) -> Any:
    try:
        return as_bool(value) if flag.kind is bool else value
    except ValueError:
        raise UsageError(
            "not a truth value", field=f"--{flag.name}", expected="true or false", found=repr(value)
        ) from None


def spread(words: Sequence[str]) -> list[str]:
    """Repeat a flag that takes many words, as in ``--options a=1 b=2``, before each of them."""
    result: list[str] = []
    flag: str | None = None
    for word in words:
        if word in MANY:
            flag = word
        elif word.startswith("--") or flag is None:
            flag = None
            result.append(word)
        else:
            result += [flag, word]
    return result

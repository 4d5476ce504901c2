"""The arguments of the model card's launch scripts, which ``scripts/*.sh`` hand over as they got them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glm3.entrypoints.cli.command import settings_of
from glm3.entrypoints.cli.output import note

if TYPE_CHECKING:
    from glm3.entrypoints.cli.launching import LaunchOptions

__all__ = ["SETTINGS", "Script", "launch_script", "options_of"]

SETTINGS = {"ignore_unknown_options": True, "allow_interspersed_args": False}

RUN_STATUS = ("train", "finetune", "eval", "predict")
USAGE = {
    "distribute": """\
Usage Help: bash run_distribute.sh [RANK_TABLE_FILE] [CONFIG_PATH] [DEVICE_RANGE] [RUN_STATUS] for one machine
Usage Help: bash run_distribute.sh [RANK_TABLE_FILE] [CONFIG_PATH] [DEVICE_RANGE] [RUN_STATUS] [RANK_SIZE] \
for several
Usage Help: bash run_distribute.sh ... predict [PREDICT_DATA], or ... predict [RANK_SIZE] [PREDICT_DATA]""",
    "standalone": """\
Usage Help: bash run_standalone.sh [CONFIG_PATH] [DEVICE_ID] [RUN_STATUS], or ... predict [PREDICT_DATA]""",
    "msrun": """\
Usage Help: bash msrun_launcher.sh [EXECUTE_ORDER] with 8 workers
Usage Help: bash msrun_launcher.sh [EXECUTE_ORDER] [WORKER_NUM]
Usage Help: bash msrun_launcher.sh [EXECUTE_ORDER] [WORKER_NUM] [MASTER_PORT] [LOG_DIR] [JOIN] [TIME_OUT]
Usage Help: bash msrun_launcher.sh [EXECUTE_ORDER] [WORKER_NUM] [LOCAL_WORKER] [MASTER_ADDR] [MASTER_PORT] \
[NODE_RANK] [LOG_DIR] [JOIN] [TIME_OUT]""",
}


class Script(StrEnum):
    """Which of the scripts."""

    distribute = "distribute"
    standalone = "standalone"
    msrun = "msrun"


def launch_script(
    context: typer.Context,
    script: Annotated[Script, typer.Argument(help="Which script.")],
    root: Annotated[Path, typer.Argument(help="The checkout, where ranks run and output goes.")],
    words: Annotated[list[str] | None, typer.Argument(help="Its arguments.")] = None,
) -> None:
    """Launch as one of the model card's scripts does."""
    from glm3.entrypoints.cli.launching import run_launch

    raise typer.Exit(run_launch(settings_of(context), options_of(script, root.resolve(), words or [])))


def options_of(script: Script, root: Path, words: Sequence[str]) -> LaunchOptions:
    """Return what a script's arguments mean.

    Raises:
        UsageError: they are too few, too many or not what their places want.
    """
    readers = {Script.distribute: _distribute, Script.standalone: _standalone, Script.msrun: _msrun}
    return readers[script](root, list(words))


def _distribute(root: Path, words: list[str]) -> LaunchOptions:
    from glm3.domain.rank_table.device_range import parse_launch_range
    from glm3.entrypoints.cli.launching import LaunchOptions

    _refuse_expanded(words[1:])
    status = words[3] if len(words) > 3 else ""
    extra = words[4:]
    predict_data = extra.pop() if status == "predict" and extra else None
    if len(words) < 4 or len(extra) > 1 or (status == "predict" and predict_data is None):
        raise _usage(Script.distribute, words)
    workers = _number("RANK_SIZE", extra[0]) if extra else None
    return LaunchOptions(
        command=_run(words[1], status, predict_data, parallel=True),
        folder=root,
        rank_table=Path(words[0]),
        devices=words[2],
        workers=workers,
        # The model card starts one machine after the other in a loop: each call has to return.
        detach=workers is not None and len(parse_launch_range(words[2])) < workers,
    )


def _standalone(root: Path, words: list[str]) -> LaunchOptions:
    from glm3.entrypoints.cli.launching import LaunchOptions

    _refuse_expanded(words)
    predicting = len(words) == 4 and words[2] == "predict"
    if len(words) != 3 and not predicting:
        raise _usage(Script.standalone, words)
    device = _number("DEVICE_ID", words[1], least=0)
    return LaunchOptions(
        command=_run(words[0], words[2], words[3] if predicting else None, parallel=False),
        folder=root,
        workers=None,
        devices=f"[{device},{device + 1}]",
        uses_table=False,
    )


def _msrun(root: Path, words: list[str]) -> LaunchOptions:
    from glm3.entrypoints.cli.launching import LaunchOptions

    if len(words) not in (1, 2, 6, 9):
        raise _usage(Script.msrun, words)
    order = shlex.split(words[0])
    if order[:1] == ["python"]:
        del order[0]
    workers = _number("WORKER_NUM", words[1]) if len(words) > 1 else 8
    if len(words) <= 2:
        return LaunchOptions(
            command=order, folder=root, workers=workers, log_dir=root / "output" / "msrun_log"
        )
    *_, log_dir, join, timeout = words
    if join.lower() != "true":
        note("note: this launcher stays until the job has ended, whatever JOIN says")
    several = len(words) == 9
    return LaunchOptions(
        command=order,
        folder=root,
        workers=workers,
        local_workers=_number("LOCAL_WORKER", words[2]) if several else None,
        master_addr=words[3] if several else None,
        master_port=_number("MASTER_PORT", words[4] if several else words[2]),
        node_rank=_number("NODE_RANK", words[5], least=0) if several else None,
        log_dir=Path(log_dir),
        join_timeout=_number("TIME_OUT", timeout),
    )


def _run(config: str, status: str, predict_data: str | None, *, parallel: bool) -> list[str]:
    from glm3.domain.errors import UsageError

    if status not in RUN_STATUS:
        raise UsageError(
            "no such run status", field="RUN_STATUS", expected=", ".join(RUN_STATUS), found=repr(status)
        )
    words = ["run", "--config", config, "--use_parallel", str(parallel), "--run_mode", status]
    if predict_data is not None:
        path = Path(predict_data)
        words += ["--predict_data", str(path.absolute()) if path.exists() else predict_data]
    return words


def _refuse_expanded(words: Sequence[str]) -> None:
    """Tell a pattern apart that the shell replaced by several files before anybody could look at it."""
    from glm3.domain.errors import UsageError

    files: list[str] = []
    for word in words:
        if not word.endswith((".yaml", ".yml")):
            break
        files.append(word)
    if len(files) > 1:
        raise UsageError(
            "the pattern fits several files",
            field="CONFIG_PATH",
            expected="one file",
            found=", ".join(files),
            hint="write the name out",
        )


def _number(field: str, text: str, least: int = 1) -> int:
    from glm3.domain.errors import UsageError

    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least:
        return int(text)
    raise UsageError(
        "not a number",
        field=field,
        expected=f"a number of at least {least}",
        found=repr(text),
        hint="the shell calculates only in $((8*12)); 8*12 is a text" if "*" in text else None,
    )


def _usage(script: Script, words: Sequence[str]) -> Exception:
    from glm3.domain.errors import UsageError

    return UsageError(
        "the number of arguments is wrong", found=f"{len(words)}: {shlex.join(words)}", hint=USAGE[script]
    )

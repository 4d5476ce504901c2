"""What the ranks of a job run: a command of this program, or a Python script."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from glm3.entrypoints.cli.run_flags import overrides_of
from glm3.entrypoints.cli.settings import Settings

if TYPE_CHECKING:
    from glm3.domain.errors import Glm3Error
    from glm3.domain.run_config import RunConfig

__all__ = ["CARD_SCRIPT", "RankCommand", "resolve_command"]

CARD_SCRIPT = "run_mindformer.py"
EVALUATION = "eval"


@frozen(kw_only=True)
class RankCommand:
    """The words to start a rank with; ``config`` is what they make of the file they name.

    ``faults`` are those of that file, told later, together with those of the job.
    """

    words: tuple[str, ...]
    config: RunConfig | None = None
    faults: tuple[Glm3Error, ...] = ()


def resolve_command(words: Sequence[str], settings: Settings) -> RankCommand:
    """Return what starts a rank; files are found from here, wherever ranks run.

    Raises:
        UsageError, MissingFileError: there is no such command, script or file.
        TyperException: the command is put together wrongly.
    """
    from glm3.domain.errors import MissingFileError, UsageError
    from glm3.entrypoints.cli.app import app
    from glm3.entrypoints.cli.command import typer_commands

    if not words:
        raise UsageError(
            "nothing to launch", expected="a command", hint="glm3 launch --workers 2 finetune --config FILE"
        )
    verb, rest = words[0], list(words[1:])
    if Path(verb).name == CARD_SCRIPT:
        verb = "run"
    elif verb.endswith(".py"):
        script = Path(verb)
        if not script.is_file():
            raise MissingFileError("no such script", path=verb)
        return RankCommand(words=(sys.executable, str(script.absolute()), *rest))
    commands = typer_commands(app)
    if verb not in commands or verb.startswith("launch"):
        raise UsageError(
            "no such command",
            expected="a command of glm3, as finetune, run or eval, or a script that ends in .py",
            found=verb,
        )
    parameters, others = _parsed(commands[verb], verb, rest)
    name = parameters.get("config") or parameters.get("config_name")
    if not isinstance(name, str):
        return RankCommand(words=(sys.executable, "-m", "glm3", verb, *rest))
    overrides = _overrides(parameters, others)
    if verb == EVALUATION:  # whatever the file is for: data of training need not be there
        overrides.append(f"run_mode={EVALUATION}")
    return _with_config(verb, rest, name, overrides, settings)


def _with_config(
    verb: str, words: list[str], name: str, overrides: list[str], settings: Settings
) -> RankCommand:
    from glm3.domain.errors import MultipleFaultsError
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.run_mindformer import find_config

    path = find_config(name).resolve()
    command = (sys.executable, "-m", "glm3", verb, *_with_option(words, "--config", name, str(path)))
    try:
        return RankCommand(words=command, config=container(settings).run_configs().read(path, overrides))
    except MultipleFaultsError as error:
        return RankCommand(words=command, faults=error.faults)


def _parsed(command: Any, verb: str, words: list[str]) -> tuple[dict[str, Any], list[str]]:
    context = command.make_context(verb, list(words))
    return dict(context.params), list(context.args)


def _overrides(parameters: dict[str, Any], others: list[str]) -> list[str]:
    given = [*overrides_of(parameters), *(parameters.get("options") or []), *others]
    return given + list(parameters.get("overrides") or [])


def _with_option(words: list[str], option: str, value: str, replacement: str) -> list[str]:
    result = []
    for index, word in enumerate(words):
        if word == f"{option}={value}":
            result.append(f"{option}={replacement}")
        elif word == value and index and words[index - 1] == option:
            result.append(replacement)
        else:
            result.append(word)
    return result

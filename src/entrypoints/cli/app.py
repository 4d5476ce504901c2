"""The command tree, its global options, and the one place where a command's outcome becomes an exit code.

Modules named here import only typer and the standard library at their top: what a command needs is
imported when it runs, so that ``glm3 --help`` stays quick and never loads MindSpore.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from glm3.entrypoints.cli import (
    chat,
    config,
    convert,
    data,
    demo,
    doctor,
    evaluate,
    export,
    finetune,
    hccl,
    inspection,
    kernels,
    launch,
    launch_scripts,
    merge,
    plan,
    predict,
    quantize,
    run_mindformer,
    serve,
)
from glm3.entrypoints.cli.command import Command
from glm3.entrypoints.cli.failures import INTERRUPTED, report
from glm3.entrypoints.cli.settings import LogFormat, LogLevel, Settings

__all__ = ["app", "run"]

HELP = """\
Finetune, merge and chat with ChatGLM3-6B on MindSpore.

Without -m every command uses the small model that comes with the program. Answers go to standard output,
everything else to standard error.
"""
EPILOG = """\
\b
Examples:
  glm3 doctor                        check this machine
  glm3 chat                          talk to the embedded model
  glm3 chat -m ./chatglm3-6b -p 你好  one answer from a downloaded folder
  glm3 COMMAND --help                options and examples of a command
"""

app = typer.Typer(
    name="glm3",
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

app.command("demo", cls=Command, epilog=demo.EPILOG)(demo.demo)
app.command("chat", cls=Command, epilog=chat.EPILOG)(chat.chat)
app.command("predict", cls=Command, epilog=predict.EPILOG)(predict.predict)
app.command(
    "run",
    cls=run_mindformer.RunCommand,
    epilog=run_mindformer.EPILOG,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)(run_mindformer.run)
app.command("finetune", cls=Command, epilog=finetune.EPILOG)(finetune.finetune)
app.command("eval", cls=Command, epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command("plan", cls=Command, epilog=plan.EPILOG)(plan.plan)
app.command("convert", cls=Command, epilog=convert.EPILOG)(convert.convert)
app.command("quantize", cls=Command, epilog=quantize.EPILOG)(quantize.quantize)
app.command("merge", cls=Command, epilog=merge.EPILOG)(merge.merge)
app.command("inspect", cls=Command, epilog=inspection.EPILOG)(inspection.inspect)
app.command("launch", cls=Command, epilog=launch.EPILOG, context_settings=launch.SETTINGS)(launch.launch)
app.command("launch-script", cls=Command, hidden=True, context_settings=launch_scripts.SETTINGS)(
    launch_scripts.launch_script
)
app.command("doctor", cls=Command, epilog=doctor.EPILOG)(doctor.doctor)
app.command("serve", cls=Command, epilog=serve.EPILOG)(serve.serve)
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")
app.add_typer(kernels.app, name="kernels")
app.add_typer(export.app, name="export")
app.add_typer(hccl.app, name="hccl")

# Global options are also accepted behind the command, where people tend to write them.
_FLAGS = ("--debug", "--offline")
_VALUED = ("--log-format", "--log-level")


def _show_version(wanted: bool) -> None:
    if wanted:
        from glm3._version import __version__

        typer.echo(f"glm3 {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  # acted upon by its callback
        bool,
        typer.Option("--version", help="Print the version and leave.", callback=_show_version, is_eager=True),
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="Form of log lines on standard error.", envvar="GLM3_LOG_FORMAT")
    ] = LogFormat.console,
    log_level: Annotated[
        LogLevel, typer.Option(help="Least important log lines to print.", envvar="GLM3_LOG_LEVEL")
    ] = LogLevel.warning,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never touch the network.", envvar="GLM3_OFFLINE")
    ] = False,
) -> None:
    context.obj = Settings(
        log_format=log_format, log_level=LogLevel.debug if debug else log_level, debug=debug, offline=offline
    )


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` by default) and return its exit code."""
    words = _global_options_first(sys.argv[1:] if arguments is None else list(arguments))
    command = typer.main.get_command(app)
    try:
        outcome = command.main(args=words, prog_name="glm3", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        _close_stdout()
        return 0
    except (KeyboardInterrupt, Exception) as error:  # everything ends here, once
        return report(error, debug="--debug" in words)
    if outcome == INTERRUPTED:  # typer swallows the exception itself
        return report(KeyboardInterrupt())
    return outcome if isinstance(outcome, int) else 0


def _global_options_first(words: list[str]) -> list[str]:
    """Move global options from behind the command to the front; nothing behind ``--`` is touched."""
    end = words.index("--") if "--" in words else len(words)
    front: list[str] = []
    rest: list[str] = []
    position = 0
    while position < end:
        word = words[position]
        if word in _FLAGS or word.startswith(tuple(f"{name}=" for name in _VALUED)):
            front.append(word)
        elif word in _VALUED:
            front += words[position : min(position + 2, end)]
            position += 1
        else:
            rest.append(word)
        position += 1
    return front + rest + words[end:]


def _close_stdout() -> None:
    """Let the interpreter's last flush go nowhere: the reader (``| head``) has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

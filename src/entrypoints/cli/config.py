"""``glm3 config``: check a YAML file, or show what it comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glm3.entrypoints.cli.command import Command, settings_of
from glm3.entrypoints.cli.output import answer, answer_json, note

if TYPE_CHECKING:
    from glm3.domain.run_config import RunConfig

__all__ = ["app"]

CHECK_EPILOG = """\
\b
Examples:
  glm3 config check configs/glm3/glm3_tiny.yaml
  glm3 config check my.yaml --run-mode finetune runner_config.epochs=3
"""
SHOW_EPILOG = """\
\b
Examples:
  glm3 config show configs/glm3/glm3_tiny.yaml
  glm3 config show configs/glm3/glm3_tiny.yaml seed=7 --json
"""

app = typer.Typer(
    help="Check a YAML file of a run, or show what it comes to.", rich_markup_mode=None, no_args_is_help=True
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file, as in configs/glm3.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of single keys.")
]


@app.command("check", cls=Command, epilog=CHECK_EPILOG)
def check(
    context: typer.Context,
    file: File,
    overrides: Overrides = None,
    run_mode: Annotated[
        str | None, typer.Option(metavar="MODE", help="Check for this run mode instead of the file's own.")
    ] = None,
    device_count: Annotated[int | None, typer.Option(help="Number of devices of the job, if known.")] = None,
) -> None:
    """Report everything that is wrong with a file, each fault with its line.

    Unknown keys, wrong types and contradictions are found before data, weights or devices are touched.
    """
    from glm3.domain.run_config import check_for

    config = _read(context, file, overrides)
    check_for(config, run_mode, device_count=device_count)
    answer(f"{file}: fit for run mode {run_mode or config.run_mode}")


@app.command("show", cls=Command, epilog=SHOW_EPILOG)
def show(
    context: typer.Context,
    file: File,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print every key of a run with its value and the place it comes from."""
    config = _read(context, file, overrides)
    values = _plain(config)
    if as_json:
        answer_json(values)
        return
    for key, value in _flat(values):
        text = json.dumps(value, ensure_ascii=False)
        answer(f"{key}={text}  # {_place(config, key)}")


def _read(context: typer.Context, file: Path, overrides: list[str] | None) -> RunConfig:
    from glm3.entrypoints.cli.loading import container

    config = container(settings_of(context)).run_configs().read(file, overrides or [])
    for notice in config.notices:
        note(f"note: {notice}")
    return config


def _place(config: RunConfig, key: str) -> str:
    origin = config.origins.get(key)
    if origin is None:
        return "default, or the checkpoint's own" if key.startswith("model.model_config.") else "default"
    if origin.given is not None:
        return "command line"
    return (
        f"line {origin.line}" if origin.path == config.origin_of("").path else f"{origin.path}:{origin.line}"
    )


def _plain(config: RunConfig) -> dict[str, Any]:
    from attrs import asdict

    values = asdict(config, filter=lambda attribute, _: attribute.name not in ("notices", "origins", "given"))
    network = values["model"]
    network["model_config"] |= {"pet_config": network.pop("pet_config")}
    return values


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            yield from _flat(dict(zip(map(str, range(len(value))), value, strict=True)), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

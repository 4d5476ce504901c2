"""``glm3 inspect``: what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glm3.entrypoints.cli.command import settings_of

if TYPE_CHECKING:
    from glm3.application.inspect_checkpoint import CheckpointReport

__all__ = ["EPILOG", "inspect"]

EPILOG = """\
\b
Examples:
  glm3 inspect ./chatglm3-6b
  glm3 inspect glm3_6b.ckpt --json
"""


def inspect(
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A folder or file of weights, or a name as tiny.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print the names, shapes, dtypes and sizes in a checkpoint, and the network they make.

    Only headers are read. Ends with exit code 1 if the weights do not fit the config.json beside them.
    """
    from glm3.application.inspect_checkpoint import inspect_checkpoint
    from glm3.entrypoints.cli.loading import container, weights_named
    from glm3.entrypoints.cli.output import answer_json

    settings = settings_of(context)
    report = inspect_checkpoint(weights_named(settings, path), container(settings).checkpoint_stores())
    if as_json:
        answer_json(_to_json(report))
    else:
        _print(report)
    if report.field_differences or report.parameter_differences:
        raise typer.Exit(1)


def _print(report: CheckpointReport) -> None:
    from glm3.entrypoints.cli.output import answer
    from glm3.entrypoints.cli.progress import size

    width = max((len(spec.name) for spec in report.tensors), default=0)
    for spec in report.tensors:
        shape = "x".join(map(str, spec.shape)) or "scalar"
        answer(f"{spec.name:<{width}}  {spec.dtype.value:<8}  {shape:<14}  {size(spec.nbytes)}")
    answer("")
    for file in report.files:
        answer(f"{file.path.name}: {file.tensors} tensors, {size(file.file_bytes)}")
    dtypes = ", ".join(f"{name} {size(nbytes)}" for name, nbytes in report.dtypes.items())
    answer(
        f"{report.path}: {report.format}, {len(report.tensors)} tensors, "
        f"{report.parameter_count:,} parameters, {size(report.total_bytes)} ({dtypes})"
    )
    _print_network(report)


def _print_network(report: CheckpointReport) -> None:
    from glm3.entrypoints.cli.output import answer, note

    if report.implied is None:
        answer("\nnot the tensors of a ChatGLM3 network")
    else:
        answer("\nnetwork, from the shapes:")
        for name, value in report.implied.derived.items():
            answer(f"  {name}: {value}")
        for assumption in report.implied.assumptions if report.config is None else ():
            answer(f"  assumed: {assumption}")
    if report.config is None:
        note("there is no config.json beside the weights to compare with")
    for field in report.field_differences:
        answer(f"config.json is wrong: {field.field} is {field.configured}, the shapes say {field.implied}")
    if (differences := report.parameter_differences) is not None:
        for name in differences.missing:
            answer(f"missing: {name}")
        for name in differences.unexpected:
            answer(f"unexpected: {name}")
        for name, expected, found in differences.mis_shaped:
            answer(f"wrong shape: {name}: expected {expected}, found {found}")
        if not differences and not report.field_differences:
            answer("config.json fits")


def _to_json(report: CheckpointReport) -> dict[str, Any]:
    differences = report.parameter_differences
    return {
        "path": str(report.path),
        "format": report.format,
        "parameters": report.parameter_count,
        "bytes": report.total_bytes,
        "bytes_by_dtype": dict(report.dtypes),
        "metadata": dict(report.metadata),
        "files": [
            {"path": str(f.path), "bytes": f.file_bytes, "tensors": f.tensors, "tensor_bytes": f.tensor_bytes}
            for f in report.files
        ],
        "tensors": [
            {"name": t.name, "dtype": t.dtype.value, "shape": list(t.shape), "bytes": t.nbytes}
            for t in report.tensors
        ],
        "implied_config": None if report.implied is None else dict(report.implied.derived),
        "assumptions": [] if report.implied is None else list(report.implied.assumptions),
        "config_json": None if report.config is None else report.config.to_hugging_face(),
        "wrong_fields": [
            {"field": f.field, "configured": f.configured, "implied": f.implied}
            for f in report.field_differences
        ],
        "missing": [] if differences is None else list(differences.missing),
        "unexpected": [] if differences is None else list(differences.unexpected),
        "wrong_shapes": []
        if differences is None
        else [
            {"name": name, "expected": list(expected), "found": list(found)}
            for name, expected, found in differences.mis_shaped
        ],
    }

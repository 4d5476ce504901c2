"""Which tensors go into the slices that are made, and whether the strategies know all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

from glm3.application.slice_sources import SliceSources, uncovered
from glm3.domain.errors import CheckpointError, Glm3Error, MultipleFaultsError
from glm3.domain.layout.strategy import JobStrategy
from glm3.domain.parameter_check import contradictions
from glm3.domain.parameters import from_mindspore_name, is_model_parameter
from glm3.domain.tensors import TensorSpec

__all__ = ["Selection", "choose_tensors", "require_cover", "target_specs"]

_FIRST_MOMENT = "adam_m."


class Selection(StrEnum):
    """What of a training checkpoint to take: everything, the network alone, or what of it was trained."""

    ALL = "all"
    WEIGHTS = "weights"
    TRAINABLE = "trainable"


def choose_tensors(slices: SliceSources, select: Selection) -> list[str]:
    """Return the names to take, in the order of the files.

    A parameter was trained if the optimizer has a state of it; in a checkpoint without states all were.

    Raises:
        CheckpointError: nothing is left.
    """
    names = list(slices.tensors)
    if select is not Selection.ALL:
        names = [name for name in names if is_model_parameter(name)]
    trained = {name.removeprefix(_FIRST_MOMENT) for name in slices.tensors if name.startswith(_FIRST_MOMENT)}
    if select is Selection.TRAINABLE and trained:
        names = [name for name in names if name in trained]
    if not names:
        raise CheckpointError(
            "the checkpoint holds no such tensors", path=next(iter(slices.paths.values())), found=select.value
        )
    return names


def require_cover(
    slices: SliceSources, source: JobStrategy, target: JobStrategy, path: Path, select: Selection
) -> None:
    """Check that every parameter has a layout in both strategies, that cuts it evenly, and that each layout's
    parameter is there.

    Trained weights alone are never all that a strategy knows.

    Raises:
        MultipleFaultsError: naming every parameter for which that does not hold.
    """
    faults: list[Glm3Error] = []
    for strategy, which in ((source, "source"), (target, "target")):
        if not strategy.parameters:
            continue
        unknown = uncovered(strategy, slices.tensors)
        absent = [
            name
            for name in strategy.parameters
            if name not in slices.tensors and is_model_parameter(name) and select is not Selection.TRAINABLE
        ]
        hint = "the strategy is of another model or of another job"
        if unknown:
            faults.append(_fault(f"the {which} strategy does not say how these are cut", unknown, path, hint))
        if absent:
            faults.append(_fault(f"no rank has these, which the {which} strategy cuts", absent, path, hint))
    faults += _uneven(slices, target, path) + _no_network(slices, path)
    if faults:
        raise MultipleFaultsError("the strategies do not fit the checkpoint:", faults)


def _fault(what: str, names: Iterable[str], path: Path, hint: str) -> CheckpointError:
    return CheckpointError(f"{what}: {', '.join(names)}", path=path, hint=hint)


def _uneven(slices: SliceSources, target: JobStrategy, path: Path) -> list[CheckpointError]:
    faults = []
    for name, spec in slices.tensors.items():
        try:
            target.slices(name, spec.shape, target.holders(name)[0])
        except Glm3Error as fault:
            faults.append(
                CheckpointError(f"the target strategy cannot cut this: {fault}", path=path, field=name)
            )
    return faults


def _no_network(slices: SliceSources, path: Path) -> list[CheckpointError]:
    """Check the shapes against each other: a strategy of another cut makes those of no network."""
    wrong = contradictions({from_mindspore_name(name): spec.shape for name, spec in slices.tensors.items()})
    return [
        CheckpointError(
            "the slices make a tensor of a shape that does not fit the others",
            path=path,
            field=name,
            expected=list(expected),
            found=list(found),
            hint="the source strategy is of another model or of another cut"
            if slices.strategy.parameters
            else "these look like slices: name their strategy",
        )
        for name, expected, found in wrong
    ]


def target_specs(
    slices: SliceSources, target: JobStrategy, names: Sequence[str], rank: int
) -> list[TensorSpec]:
    """Describe what one target rank holds."""
    specs = []
    for name in names:
        full = slices.tensors[name]
        shape = target.slice_shape(name, full.shape, rank)
        if shape is not None:
            specs.append(TensorSpec(name, full.dtype, shape))
    return specs

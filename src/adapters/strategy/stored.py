"""What a strategy file states, in either form, and the strategies that it makes.

A file holds one pipeline stage. A merged one, as ``merge_pipeline_strategys`` writes it, holds all of them
and puts the stage before every parameter's name, ``1-transformer.output_layer.weight``. The stage of a file
is that of its operators; what MindSpore writes as ``current_stage`` counts compilations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from glm3.domain.errors import CheckpointError, Glm3Error, InvalidInputError, raise_faults
from glm3.domain.layout.faults import faults_of
from glm3.domain.layout.strategy import JobStrategy, Strategy
from glm3.domain.layout.tensor_layout import Shape, TensorLayout

__all__ = ["StoredLayout", "StoredOperator", "StoredStrategy", "stored_job", "stored_stage", "to_stages"]

_OF_STAGE = re.compile(r"(\d+)-(.+)", re.DOTALL)


@frozen
class StoredLayout:
    """One parameter's entry; several ``tensor_maps``, one an axis, cut along several axes of the devices."""

    name: str
    device_matrix: tuple[int, ...]
    tensor_maps: tuple[tuple[int, ...], ...]
    optimizer_shard_step: int = 0
    optimizer_shard_size: int = 0
    field: int = 0
    split_shape: tuple[int, ...] = ()
    indices_offset: tuple[int, ...] = ()
    tensor_shape: Shape | None = None

    def layout(self) -> TensorLayout:
        """Return the domain's record.

        Raises:
            InvalidInputError: the entry contradicts itself, or cuts unevenly or an axis twice.
        """
        if len(self.tensor_maps) > 1:
            raise InvalidInputError(
                "an axis that is cut along several axes of the device matrix is not supported",
                field="tensor_map",
                found=self.tensor_maps,
            )
        if self.split_shape or self.indices_offset:
            raise InvalidInputError(
                "uneven cuts are not supported",
                field="param_split_shape",
                found=self.split_shape or self.indices_offset,
            )
        return TensorLayout(
            self.device_matrix,
            self.tensor_maps[0] if self.tensor_maps else (),
            self.optimizer_shard_step,
            self.optimizer_shard_size,
            self.field,
        )


@frozen
class StoredOperator:
    """One operator's entry: how each of its inputs is cut."""

    name: str
    stage: int
    inputs: tuple[tuple[int, ...], ...]


@frozen
class StoredStrategy:
    """A file's content, in its order."""

    layouts: Sequence[StoredLayout]
    operators: Sequence[StoredOperator] = field(factory=tuple)


def to_stages(stored: StoredStrategy, path: Path) -> tuple[Strategy, ...]:
    """Return the stages that a file holds: one, or all of a merged file.

    Raises:
        CheckpointError: the file holds no parameter, holds one twice, or mixes stages.
        InvalidInputError: a layout contradicts itself. Several faults are reported together.
    """
    try:
        return _to_stages(stored)
    except InvalidInputError as error:
        for fault in getattr(error, "faults", (error,)):
            fault.path = path
        raise


def _to_stages(stored: StoredStrategy) -> tuple[Strategy, ...]:
    if not stored.layouts:
        raise CheckpointError(
            "the strategy names no parameter", hint="it is cut off, or of a job without cuts"
        )
    names = [entry.name for entry in stored.layouts]
    faults: list[Glm3Error] = [
        CheckpointError("the parameter is named more than once", field=name)
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    prefixed = [_OF_STAGE.fullmatch(name) for name in names]
    if any(prefixed) and not all(prefixed):
        faults += [
            CheckpointError("the stage is missing from the name in a merged strategy", field=name)
            for name, found in zip(names, prefixed, strict=True)
            if found is None
        ]
    raise_faults("the strategy file is not usable", faults)
    by_stage: dict[int, dict[str, StoredLayout]] = {}
    if all(prefixed):
        for entry, found in zip(stored.layouts, prefixed, strict=True):
            assert found is not None  # noqa: S101  (all matched)
            by_stage.setdefault(int(found[1]), {})[found[2]] = entry
    else:
        by_stage[_stage_of(stored.operators)] = {entry.name: entry for entry in stored.layouts}
    return _assemble(by_stage, stored.operators)


def _assemble(
    by_stage: Mapping[int, Mapping[str, StoredLayout]], operators: Iterable[StoredOperator]
) -> tuple[Strategy, ...]:
    faults: list[Glm3Error] = []
    stages: list[Strategy] = []
    for stage, entries in sorted(by_stage.items()):
        layouts: dict[str, TensorLayout] = {}
        for name, entry in entries.items():
            try:
                layouts[name] = entry.layout()
            except InvalidInputError as error:
                faults += faults_of(error, name)
        sizes = [layout.num_ranks for layout in layouts.values()]
        try:
            stages.append(
                Strategy(
                    layouts,
                    num_ranks=max(set(sizes), key=sizes.count, default=1),
                    stage=stage,
                    shapes={n: e.tensor_shape for n, e in entries.items() if e.tensor_shape is not None},
                    operators={one.name: one.inputs for one in operators if one.stage == stage},
                )
            )
        except InvalidInputError as error:
            faults += getattr(error, "faults", (error,))
    raise_faults("the strategy file is not usable", faults)
    return tuple(stages)


def _stage_of(operators: Sequence[StoredOperator]) -> int:
    stages = sorted({operator.stage for operator in operators})
    if len(stages) > 1:
        raise CheckpointError(
            "operators of several stages, but parameters without their stage", field="stage", found=stages
        )
    return stages[0] if stages else 0


def stored_stage(stage: Strategy) -> StoredStrategy:
    """Return the content of one stage's file."""
    return StoredStrategy(_layouts_of(stage), _operators_of(stage))


def stored_job(job: JobStrategy) -> StoredStrategy:
    """Return the content of a merged file."""
    return StoredStrategy(
        [entry for stage in job.stages for entry in _layouts_of(stage, f"{stage.stage}-")],
        [operator for stage in job.stages for operator in _operators_of(stage)],
    )


def _layouts_of(stage: Strategy, prefix: str = "") -> list[StoredLayout]:
    return [
        StoredLayout(
            prefix + name,
            layout.device_matrix,
            (layout.tensor_map,),
            layout.optimizer_shard_step,
            layout.optimizer_shard_size,
            layout.field,
            tensor_shape=stage.shapes.get(name),
        )
        for name, layout in stage.layouts.items()
    ]


def _operators_of(stage: Strategy) -> list[StoredOperator]:
    """Return a stage's operators: MindSpore reads the stage from them, and takes a file without for empty."""
    if stage.operators:
        return [StoredOperator(name, stage.stage, inputs) for name, inputs in stage.operators.items()]
    return [StoredOperator(f"stage_{stage.stage}", stage.stage, ((stage.num_ranks,),))]

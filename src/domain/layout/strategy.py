"""How the parameters of a whole job are cut: one strategy a pipeline stage, and the job over all of them.

Parameters are called as in MindSpore's checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from attrs import define, field, frozen

from glm3.domain.errors import Glm3Error, InvalidInputError, raise_faults
from glm3.domain.layout.boxes import Box, whole
from glm3.domain.layout.faults import faults_of
from glm3.domain.layout.tensor_layout import Shape, TensorLayout
from glm3.domain.parameters import OPTIMIZER_PREFIXES

__all__ = ["COMPLETE", "JobStrategy", "Strategy"]


@frozen
class Strategy:
    """The cut of one pipeline stage: the layouts of its parameters over its ``num_ranks`` ranks.

    ``shapes`` are those of the complete tensors, where they are known. ``operators`` says how MindSpore cuts
    the inputs of each operator; it is kept for MindSpore's compiler and not used here.

    Raises:
        InvalidInputError: a layout is for another number of ranks.
    """

    layouts: Mapping[str, TensorLayout]
    num_ranks: int = 1
    stage: int = 0
    shapes: Mapping[str, Shape] = field(factory=dict)
    operators: Mapping[str, tuple[Shape, ...]] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        faults = [
            InvalidInputError(
                "the layout is for another number of ranks",
                field=name,
                expected=self.num_ranks,
                found=layout.num_ranks,
            )
            for name, layout in self.layouts.items()
            if layout.num_ranks != self.num_ranks
        ]
        raise_faults(f"stage {self.stage} has layouts for several numbers of ranks", faults)

    def layout(self, name: str) -> TensorLayout | None:
        """Return how a tensor is cut; an optimizer state without a layout is cut as its parameter."""
        if name in self.layouts:
            return self.layouts[name]
        for prefix in OPTIMIZER_PREFIXES:
            if name.startswith(prefix):
                return self.layouts.get(name.removeprefix(prefix))
        return None


@define(frozen=True, slots=False)
class JobStrategy:
    """The cut of a job: its stages in order, all of the same number of ranks; ranks count through the stages.

    Raises:
        InvalidInputError: there is no stage, or stages are missing, twice there or of different sizes.
    """

    stages: tuple[Strategy, ...]

    def __attrs_post_init__(self) -> None:
        if not self.stages:
            raise InvalidInputError("a strategy without stages", field="stages")
        faults = [
            InvalidInputError(
                "a stage is missing or twice there", field="stage", expected=at, found=stage.stage
            )
            for at, stage in enumerate(self.stages)
            if stage.stage != at
        ]
        faults += [
            InvalidInputError(
                f"stage {stage.stage} has another number of ranks than stage 0",
                field="num_ranks",
                expected=self.ranks_per_stage,
                found=stage.num_ranks,
            )
            for stage in self.stages
            if stage.num_ranks != self.ranks_per_stage
        ]
        raise_faults("the stages do not make one job", faults)

    @property
    def num_stages(self) -> int:
        return len(self.stages)

    @property
    def ranks_per_stage(self) -> int:
        return self.stages[0].num_ranks

    @property
    def num_ranks(self) -> int:
        """Ranks of the whole job."""
        return self.num_stages * self.ranks_per_stage

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Every parameter that has a layout, in order of stages."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.layouts))

    def first_rank(self, stage: int) -> int:
        """Return the lowest rank of a stage."""
        return stage * self.ranks_per_stage

    def stages_of(self, name: str) -> tuple[Strategy, ...]:
        """Return the stages that hold a tensor: those with a layout for it, or else all of them."""
        return tuple(stage for stage in self.stages if stage.layout(name) is not None) or self.stages

    def layout(self, name: str, axes: int, stage: int = 0) -> TensorLayout:
        """Return how a stage that holds a tensor of ``axes`` axes cuts it; what has no layout is whole."""
        return self.stages[stage].layout(name) or TensorLayout((self.ranks_per_stage,), (-1,) * axes)

    def holders(self, name: str) -> tuple[int, ...]:
        """Return the ranks that hold a tensor, or a part of it."""
        return tuple(
            self.first_rank(stage.stage) + rank
            for stage in self.stages_of(name)
            for rank in range(stage.num_ranks)
        )

    def slices(self, name: str, shape: Sequence[int], rank: int) -> Box | None:
        """Return the part of a tensor that a rank of the job holds, None where it holds none.

        Raises:
            InvalidInputError: the layout does not fit the tensor, or the job has no such rank.
        """
        if not 0 <= rank < self.num_ranks:
            raise InvalidInputError(
                "the job has no such rank", field="rank", expected=f"0 to {self.num_ranks - 1}", found=rank
            )
        stage, local = divmod(rank, self.ranks_per_stage)
        if all(holding.stage != stage for holding in self.stages_of(name)):
            return None
        layout = self.stages[stage].layout(name)
        return whole(shape) if layout is None else layout.slices(shape, local)

    def check(self, shapes: Mapping[str, Shape]) -> None:
        """Make sure that the strategy is one of a network whose complete parameters have ``shapes``.

        Parameters without a layout are no fault: they are whole on every rank.

        Raises:
            InvalidInputError: with every layout of another parameter, shape, or that does not fit.
        """
        faults: list[Glm3Error] = []
        for stage in self.stages:
            for name, layout in stage.layouts.items():
                try:
                    _check_parameter(name, layout, stage.shapes.get(name), shapes)
                except InvalidInputError as error:
                    faults += faults_of(error, name)
        raise_faults("the strategy is not one of this network", faults)

    def uncovered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the tensors that have no layout in any stage, and so count as whole on every rank."""
        return tuple(name for name in names if all(stage.layout(name) is None for stage in self.stages))

    def slice_shape(self, name: str, shape: Sequence[int], rank: int) -> tuple[int, ...] | None:
        """Return the shape of the part of a tensor that a rank of the job holds, None where it holds none.

        Raises:
            InvalidInputError: as ``slices``.
        """
        part = self.slices(name, shape, rank)
        return None if part is None else tuple(side.stop - side.start for side in part)


def _check_parameter(
    name: str, layout: TensorLayout, stated: Shape | None, shapes: Mapping[str, Shape]
) -> None:
    plain = next((name.removeprefix(p) for p in OPTIMIZER_PREFIXES if name.startswith(p)), name)
    shape = shapes.get(name, shapes.get(plain))
    if shape is None:
        raise InvalidInputError("the network has no such parameter")
    if stated is not None and stated != shape:
        raise InvalidInputError("the strategy is for another shape", expected=shape, found=stated)
    layout.check(shape)


COMPLETE = JobStrategy((Strategy({}),))
"""One rank that holds everything: a complete checkpoint."""

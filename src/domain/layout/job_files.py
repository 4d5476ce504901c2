"""The job that the strategy files of a folder describe, each of one stage, or one merged file of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from glm3.domain.errors import CheckpointError, Glm3Error, raise_faults
from glm3.domain.layout.strategy import JobStrategy, Strategy

__all__ = ["MERGED_NAME", "join_files"]

MERGED_NAME = "merged_ckpt_strategy"
"""What MindFormers' tool calls the file in which it merges a folder, in that folder, without its ending."""

_SHOWN = 3  # parameters named of each disagreement


def join_files(files: Mapping[Path, Sequence[Strategy]]) -> JobStrategy:
    """Return the job that files make together; every rank may have one, those of one stage must agree.

    Raises:
        CheckpointError: files disagree about a stage, or a stage is missing, with every such file and stage.
        InvalidInputError: the stages have different numbers of ranks.
    """
    stages: dict[int, tuple[Path, Strategy]] = {}
    faults: list[Glm3Error] = []
    for path, found in files.items():
        for stage in found:
            first, known = stages.setdefault(stage.stage, (path, stage))
            if stage.layouts != known.layouts:
                faults.append(_disagreement(path, stage, first, known))
    for missing in sorted(set(range(max(stages, default=0))) - stages.keys()):
        faults.append(
            CheckpointError(
                "the strategy of a pipeline stage is missing",
                path=next(iter(files)).parent,
                field=f"stage {missing}",
                hint="collect the strategy files of all ranks in one folder",
            )
        )
    raise_faults("the strategy files do not make one job", faults)
    return JobStrategy(tuple(stage for _, (_, stage) in sorted(stages.items())))


def _disagreement(path: Path, stage: Strategy, first: Path, known: Strategy) -> CheckpointError:
    names = sorted(
        name
        for name in stage.layouts.keys() | known.layouts.keys()
        if stage.layouts.get(name) != known.layouts.get(name)
    )
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return CheckpointError(
        f"the file and {first.name} disagree about {', '.join(names[:_SHOWN])}{more}",
        path=path,
        field=f"stage {stage.stage}",
        hint="one of them is of another run",
    )

"""Names of the checkpoints of a run, and which of several is the latest.

``{prefix}_rank_{rank}-{epoch}_{step}.ckpt`` is MindSpore's way: ``epoch`` counts sinks and ``step`` the steps
inside one, so that with a sink of one step the names run ``-1000_1``, ``-2000_1``. A second run of the same
prefix in the same place is called ``{prefix}_rank_{rank}_1``, a third ``_2``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import frozen

__all__ = ["BEST", "LAST", "CheckpointName", "free_run", "in_order", "latest", "prefix_of", "sink_position"]

LAST, BEST = "last", "best"
"""Text files beside the checkpoints that hold the name of one of them."""

_NAME = re.compile(
    r"(?P<prefix>.+?_rank_\d+(?:_(?P<run>\d+))?)-(?P<epoch>\d+)_(?P<step>\d+)\.ckpt", re.DOTALL
)


@frozen
class CheckpointName:
    """One checkpoint; ``prefix`` holds the rank, and the number of the run if it is not the first."""

    prefix: str
    epoch: int
    step: int

    @property
    def file_name(self) -> str:
        return f"{self.prefix}-{self.epoch}_{self.step}.ckpt"

    @property
    def run(self) -> int:
        """How many runs of this prefix came before, in this place."""
        found = _NAME.fullmatch(self.file_name)
        return int(found["run"] or 0) if found else 0

    @classmethod
    def parse(cls, file_name: str) -> CheckpointName | None:
        """Read a file name; None if it is none of these."""
        found = _NAME.fullmatch(file_name)
        return cls(found["prefix"], int(found["epoch"]), int(found["step"])) if found else None


def sink_position(step: int, sink_size: int) -> tuple[int, int]:
    """Return the sink that step ``step`` (from 1) ends in, and its number inside it, both from 1."""
    return (step - 1) // sink_size + 1, (step - 1) % sink_size + 1


def in_order(file_names: Iterable[str]) -> list[CheckpointName]:
    """Return the checkpoints among file names, oldest first: by numbers, so that 200 comes before 1000."""
    names = (CheckpointName.parse(name) for name in file_names)
    return sorted(
        (name for name in names if name is not None), key=lambda name: (name.run, name.epoch, name.step)
    )


def latest(file_names: Iterable[str]) -> CheckpointName | None:
    """Return the last of them, or None if there is none."""
    names = in_order(file_names)
    return names[-1] if names else None


def prefix_of(prefix: str, rank: int, run: int) -> str:
    """Return the prefix of a rank's checkpoints of run number ``run``, from 0."""
    return f"{prefix}_rank_{rank}" + (f"_{run}" if run else "")


def free_run(prefix: str, rank: int, file_names: Iterable[str]) -> int:
    """Return the number of a new run: no file of an earlier one bears its prefix."""
    taken = {name.prefix for name in in_order(file_names)}
    run = 0
    while prefix_of(prefix, rank, run) in taken:
        run += 1
    return run

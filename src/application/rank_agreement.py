"""What the ranks of a run settle among themselves, so that each of them does the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from attrs import frozen

from glm3.domain.ports.communicator import Communicator, ReduceOp
from glm3.domain.training.checkpoint_names import CheckpointName

__all__ = ["RankAgreement"]


@frozen
class RankAgreement:
    """Ask all ranks; every one must ask the same, in the same order. Alone, a rank agrees with itself."""

    communicator: Communicator

    def any(self, answer: Callable[[], bool]) -> bool:
        """Tell whether a rank says yes."""
        own = answer()
        return own if self._alone else bool(self.largest(int(own)))

    def largest(self, number: int) -> int:
        """Return the largest of all ranks' numbers."""
        if self._alone:
            return number
        return int(self.communicator.all_reduce(np.array(number, np.int64), ReduceOp.MAX))

    def latest(self, names: Sequence[CheckpointName]) -> CheckpointName | None:
        """Return the latest of this rank's checkpoints that every rank has one of, in order of steps.

        Ranks that were killed while they saved do not all have the last one.
        """
        if self._alone:
            return names[-1] if names else None
        own = {(name.run, name.epoch, name.step): name for name in names}
        places = np.array(sorted(own), np.int64).reshape(-1, 3)
        everywhere = set(own)
        for other in self.communicator.all_gather(places):
            everywhere &= {(run, epoch, step) for run, epoch, step in other.tolist()}
        return own[max(everywhere)] if everywhere else None

    def first_ranks(self, compute: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """Return what rank 0 computes, which the others wait for."""
        if self._alone:
            return compute()
        text = json.dumps(dict(compute())).encode() if self.communicator.rank == 0 else b""
        received = self.communicator.broadcast(np.frombuffer(text, np.uint8))
        found: dict[str, float] = json.loads(received.tobytes())
        return found

    def wait(self) -> None:
        """Return once every rank is here."""
        if not self._alone:
            self.communicator.barrier()

    @property
    def _alone(self) -> bool:
        return self.communicator.world_size == 1

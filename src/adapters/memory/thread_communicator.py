"""The communicator port among the threads of one process: every rank is a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from glm3.domain.collectives import combine, missing_ranks, part_of, require_axis, require_root
from glm3.domain.errors import CommunicationError
from glm3.domain.ports.communicator import ReduceOp
from glm3.domain.tensors import Array

__all__ = ["ThreadCommunicator", "ThreadWorld"]


class ThreadWorld:
    """A job of ``size`` ranks; a rank waits ``timeout`` seconds at most for the others.

    Once a rank is missed the world is broken: every later call of any rank fails at once.
    """

    def __init__(self, size: int, timeout: float = 60.0) -> None:
        self.size = size
        self.timeout = timeout
        self._changed = threading.Condition()
        self._arrived: dict[int, tuple[str, Any]] = {}
        self._left: set[int] = set()
        self._round = 0
        self._results: dict[int, tuple[str, Any]] = {}
        self._error: CommunicationError | None = None
        self._groups: list[tuple[ThreadWorld, list[int]]] = []

    def communicator(self, rank: int) -> ThreadCommunicator:
        """Return the end of one rank."""
        return ThreadCommunicator(self, rank)

    def run(self, body: Callable[[ThreadCommunicator], Any]) -> list[Any]:
        """Run ``body`` on every rank and return the results, by rank.

        Raises:
            BaseException: the first that a body raised and that does not follow from another's.
        """
        results: list[Any] = [None] * self.size
        errors: list[BaseException] = []

        def work(rank: int) -> None:
            try:
                results[rank] = body(self.communicator(rank))
            except BaseException as error:
                errors.append(error)
            finally:
                self.leave(rank)

        threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise next((e for e in errors if not isinstance(e, CommunicationError)), errors[0])
        return results

    def leave(self, rank: int) -> None:
        """Say that a rank has ended: whoever waits for it fails at once."""
        with self._changed:
            self._left.add(rank)
            self._changed.notify_all()
            groups = list(self._groups)
        for group, members in groups:
            if rank in members:
                group.leave(members.index(rank))

    def group(self, members: list[int]) -> ThreadWorld:
        """Return a new world of some of the ranks."""
        with self._changed:
            self._groups.append((ThreadWorld(len(members), self.timeout), members))
            return self._groups[-1][0]

    def exchange(self, rank: int, call: str, value: Any) -> list[Any]:
        """Return what every rank brought, by rank, once all are here with the same ``call``.

        Raises:
            CommunicationError: ranks are missing, or make another call.
        """
        with self._changed:
            self._raise_if_broken()
            number = self._round
            self._arrived[rank] = (call, value)
            if len(self._arrived) == self.size:
                self._results, self._arrived = self._arrived, {}
                self._round += 1
                self._changed.notify_all()
            elif not self._changed.wait_for(lambda: self._over(number), self.timeout):
                absent = set(range(self.size)) - self._arrived.keys()
                self._break(absent, f"did not come to {call} within {self.timeout:g} s")
            elif self._round == number and self._error is None:
                self._break(self._left - self._arrived.keys(), f"ended before {call}")
            if self._round == number:
                self._raise_if_broken()
            results = self._results
        others = {made for made, _ in results.values()}
        if len(others) > 1:
            made = ", ".join(f"rank {other}: {results[other][0]}" for other in range(self.size))
            raise CommunicationError("the ranks make different calls", found=made)
        return [results[other][1] for other in range(self.size)]

    def _over(self, number: int) -> bool:
        return self._round != number or self._error is not None or bool(self._left - self._arrived.keys())

    def _break(self, absent: set[int], why: str) -> None:
        missing = sorted(absent)
        self._error = CommunicationError(f"{missing_ranks(missing)} missing: {why}", missing=missing)
        self._changed.notify_all()

    def _raise_if_broken(self) -> None:
        if self._error is not None:
            raise CommunicationError(self._error.message, missing=self._error.missing)


class ThreadCommunicator:
    """One rank of a :class:`ThreadWorld`."""

    def __init__(self, world: ThreadWorld, rank: int) -> None:
        self._world, self._rank = world, rank

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world.size

    def all_reduce(self, array: Array, op: ReduceOp = ReduceOp.SUM) -> Array:
        array = np.array(array)
        return combine(self._exchange(f"all_reduce {op} {array.dtype} {array.shape}", array), op)

    def all_gather(self, array: Array) -> list[Array]:
        return [np.array(other) for other in self._exchange("all_gather", np.array(array))]

    def reduce_scatter(self, array: Array, op: ReduceOp = ReduceOp.SUM) -> Array:
        require_axis(array)
        own = part_of(len(array), self._rank, self.world_size)
        array = np.array(array)
        call = f"reduce_scatter {op} {array.dtype} {array.shape}"
        return combine([other[own] for other in self._exchange(call, array)], op)

    def broadcast(self, array: Array, root: int = 0) -> Array:
        require_root(root, self.world_size)
        own = np.array(array) if root == self._rank else None
        return np.array(self._exchange(f"broadcast from {root}", own)[root])

    def barrier(self) -> None:
        self._exchange("barrier", None)

    def split(self, color: int) -> ThreadCommunicator:
        """See :class:`glm3.domain.ports.communicator.SupportsGroups`."""
        colors = self._exchange("split", color)
        members = [rank for rank, other in enumerate(colors) if other == color]
        world = self._world.group(members) if members[0] == self._rank else None
        shared = self._exchange("split into groups", world)[members[0]]
        return ThreadCommunicator(shared, members.index(self._rank))

    def _exchange(self, call: str, value: Any) -> list[Any]:
        return self._world.exchange(self._rank, call, value)

"""Deal out a list of independent tasks to the ranks of a job, and bring the results together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from glm3.domain.ports.communicator import Communicator

__all__ = ["deal_out"]

Task = TypeVar("Task")


def deal_out(
    communicator: Communicator | None, tasks: Sequence[Task], work: Callable[[int, Task], Any]
) -> list[Any]:
    """Return what ``work`` makes of every task, in order, on every rank.

    Task ``i`` falls to rank ``i`` modulo the number of ranks; ``work`` is told its number, too. What one task
    gives does not depend on how many ranks there are. Results are plain values, as JSON has them. Without a
    communicator all tasks are done here.

    Raises:
        CommunicationError: a rank ended, or did not come in time.
    """
    numbered = list(enumerate(tasks))
    if communicator is None or communicator.world_size == 1:
        return [work(number, task) for number, task in numbered]
    size = communicator.world_size
    own = [work(number, task) for number, task in numbered[communicator.rank :: size]]
    text = json.dumps(own, ensure_ascii=True).encode()
    shares = [json.loads(share.tobytes()) for share in communicator.all_gather(np.frombuffer(text, np.uint8))]
    return [shares[number % size][number // size] for number, _ in numbered]

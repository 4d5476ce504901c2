"""A bounded queue in which no client waits behind all requests of another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from glm3.domain.errors import OverloadedError

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Hold items by client; the next is of a client that is served least, in turn among equals.

    Args:
        bound: items that may wait.
        bound_per_client: items of one client that may wait; None means ``bound``.
    """

    def __init__(self, bound: int, bound_per_client: int | None = None) -> None:
        self._bound = bound
        self._bound_per_client = bound if bound_per_client is None else min(bound, bound_per_client)
        self._waiting: dict[str, deque[T]] = {}  # in the order of turns
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        for items in self._waiting.values():
            yield from items

    def push(self, client: str, item: T, free: int = 0) -> None:
        """Append an item; ``free`` more than the bound may wait, because a place is free for them at once.

        Raises:
            OverloadedError: as many wait as may.
        """
        full = self._count >= self._bound + free
        if full or len(self._waiting.get(client, ())) >= self._bound_per_client + free:
            raise OverloadedError(
                "the queue is full" if full else "too many of your requests wait",
                hint="try again in a moment, or with fewer requests at once",
            )
        self._waiting.setdefault(client, deque()).append(item)
        self._count += 1

    def pop(self, served: Mapping[str, int]) -> T:
        """Take the next item; ``served`` says how many items of a client are being worked on."""
        client = min(self._waiting, key=lambda name: served.get(name, 0))
        items = self._waiting.pop(client)
        item = items.popleft()
        if items:
            self._waiting[client] = items  # behind all others
        self._count -= 1
        return item

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out and return all items that are not wanted any more."""
        removed = [item for item in self if unwanted(item)]
        if removed:
            for client, items in list(self._waiting.items()):
                kept = deque(item for item in items if not unwanted(item))
                if kept:
                    self._waiting[client] = kept
                else:
                    del self._waiting[client]
            self._count -= len(removed)
        return removed

"""Many large arrays of which only the one that is looked at need be in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attrs import frozen

from glm3.domain.tensors import Array

__all__ = ["LazyArrays"]


@frozen(eq=False)
class LazyArrays(Mapping[str, Array]):
    """Make each array when it is looked up, anew each time; ``dict(arrays)`` keeps them all."""

    makers: Mapping[str, Callable[[], Array]]

    def __getitem__(self, name: str) -> Array:
        return self.makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)

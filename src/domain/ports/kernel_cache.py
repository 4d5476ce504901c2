"""Port: the folder of kernels that were compiled for this machine, and perhaps for others that share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from attrs import frozen

__all__ = ["KernelCache", "KernelFile"]


@frozen(kw_only=True)
class KernelFile:
    """One compiled library.

    ``instructions`` names what its dot products are made of, ``usable`` says whether it is of this
    version and for this processor.
    """

    path: Path
    nbytes: int
    usable: bool
    compiler: str = ""
    processor: str = ""
    instructions: str = ""


class KernelCache(Protocol):
    """Compile kernels ahead of time, and tell which there are."""

    def build(self, report: Callable[[str], object]) -> KernelFile:
        """Return the kernels of this machine, compiled unless they are there; ``report`` is told of it.

        Raises:
            BackendError: there is no compiler, or compiling failed.
        """
        ...

    def files(self) -> Sequence[KernelFile]:
        """Return every library, those that this machine can use first."""
        ...

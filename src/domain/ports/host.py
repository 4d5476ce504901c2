"""Port: look at the machine this process runs on."""

from __future__ import annotations

from typing import Protocol

from glm3.domain.host import HostFacts, RuntimeFacts

__all__ = ["Host"]


class Host(Protocol):
    """A machine that can be asked about itself. Neither method raises: what fails becomes a fact."""

    def facts(self) -> HostFacts:
        """Collect what can be read without starting anything heavy."""
        ...

    def try_runtime(self, target: str) -> RuntimeFacts:
        """Start MindSpore on ``target`` (``CPU`` or ``Ascend``) in a process of its own and test it."""
        ...

"""Port: run each fused operator of an accelerator beside its reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from glm3.domain.ascend_self_test import OperatorOutcome

__all__ = ["OperatorTest"]


class OperatorTest(Protocol):
    """The operators of one kind of card."""

    def run(self) -> Iterator[OperatorOutcome]:
        """Test one operator after another; what an operator raises becomes a fact.

        Raises:
            BackendError: the runtime cannot use the card.
        """
        ...

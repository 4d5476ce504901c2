"""A configuration as it was read: plain values, each with the place it came from.

An aliased part of a file is one node in several places, so that an override of one place shows in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from glm3.domain.errors import ConfigError, MultipleFaultsError

__all__ = ["Faults", "Node", "Origin", "plain"]


@frozen
class Origin:
    """Where a value was given: in a line of a file, or by an override (``given``)."""

    path: Path | None = None
    line: int | None = None
    given: str | None = None


@define(eq=False)
class Node:
    """A scalar, a list of nodes, or a mapping of texts to nodes.

    ``key_origins`` says where each key of a mapping stands; an alias makes it differ from the value's place.
    """

    value: Any
    origin: Origin = field(factory=Origin)
    key_origins: dict[str, Origin] = field(factory=dict)

    def put(self, key: str, child: Node, origin: Origin) -> None:
        """Set one entry of a mapping."""
        self.value[key] = child
        self.key_origins[key] = origin


def plain(node: Node) -> Any:
    """Return the value without its places."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


@define
class Faults:
    """Collect what is wrong, so that all of it is reported at once."""

    found: list[ConfigError] = field(factory=list)

    def add(
        self,
        message: str,
        *,
        origin: Origin,
        field: str | None = None,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        """Note one fault at the place ``origin``."""
        if origin.given is not None:
            message = f"{message} in the override {origin.given}"
        self.found.append(
            ConfigError(
                message,
                path=origin.path,
                line=origin.line,
                field=field,
                expected=expected,
                found=found,
                hint=hint,
            )
        )

    def raise_if_any(self, what: str) -> None:
        """Raise everything noted, in the order of files and lines.

        Raises:
            MultipleFaultsError: something was noted.
        """
        if self.found:
            raise MultipleFaultsError(_summary(what, self.found), _in_order(self.found))


def _summary(what: str, faults: Sequence[ConfigError]) -> str:
    return f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in {what}"


def _in_order(faults: Sequence[ConfigError]) -> list[ConfigError]:
    return sorted(faults, key=lambda fault: (str(fault.path or ""), fault.line or 0))

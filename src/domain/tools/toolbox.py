"""The tools that one conversation may use, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from glm3.domain.errors import InvalidInputError
from glm3.domain.tools.tool import Tool, tool_from

__all__ = ["Toolbox"]


class Toolbox:
    """Tools by name. There is no way in but a function that the program itself holds.

    Args:
        tools: functions, see :func:`glm3.domain.tools.tool.tool_from`, or tools.
    """

    def __init__(self, tools: Iterable[Tool | Callable[..., Any]] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            self.add(tool)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def add(self, tool: Tool | Callable[..., Any], name: str | None = None) -> None:
        """Take in a tool or function.

        Raises:
            InvalidInputError: it cannot be a tool, or there is one of its name.
        """
        if not isinstance(tool, Tool):
            tool = tool_from(tool, name)
        if tool.name in self._tools:
            raise InvalidInputError("two tools have the same name", field=tool.name)
        self._tools[tool.name] = tool

    def get(self, name: str) -> Tool | None:
        """Return the tool of this name."""
        return self._tools.get(name)

    def select(self, names: Iterable[str]) -> Toolbox:
        """Return a box of the tools with these names, each once.

        Raises:
            InvalidInputError: there is none of a name.
        """
        chosen = Toolbox()
        for name in dict.fromkeys(names):
            tool = self._tools.get(name)
            if tool is None:
                raise InvalidInputError("no such tool", expected=", ".join(self._tools), found=name)
            chosen.add(tool)
        return chosen

    @property
    def definitions(self) -> tuple[Mapping[str, Any], ...]:
        """What a model is shown."""
        return tuple(tool.spec.definition for tool in self)

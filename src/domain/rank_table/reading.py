"""Pick fields out of a parsed JSON document, collecting what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from glm3.domain.errors import ConfigError, Glm3Error

__all__ = ["Reading", "kind_of"]

_NUMERAL_DIGITS = 9


def kind_of(value: object) -> str:
    """Return what JSON calls the type of a value."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names: dict[type, str] = {str: "a string", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object")


@frozen
class Reading:
    """The faults found so far in the file at ``path``."""

    path: Path | None
    faults: list[Glm3Error] = field(factory=list)

    def fault(
        self, name: str, message: str, expected: object = None, found: object = None, hint: str | None = None
    ) -> None:
        error = ConfigError(
            message, path=self.path, field=name or None, expected=expected, found=found, hint=hint
        )
        self.faults.append(error)

    def text(self, values: Mapping[str, Any], key: str, place: str, *, needed: bool = True) -> str | None:
        """Return a string that is not empty."""
        name = f"{place}.{key}" if place else key
        if key not in values:
            if needed:
                self.fault(name, "missing")
            return None
        value = values[key]
        if isinstance(value, str) and value:
            return value
        number = isinstance(value, int) and not isinstance(value, bool)
        expected = f'"{value}": numbers are written as strings' if number else "a string"
        self.fault(name, "not a string", expected, '""' if value == "" else kind_of(value))
        return None

    def number(self, values: Mapping[str, Any], key: str, place: str) -> int | None:
        """Return the number that a string says."""
        text = self.text(values, key, place)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) <= _NUMERAL_DIGITS):
            self.fault(f"{place}.{key}" if place else key, "not a number", 'as "8"', f'"{text[:40]}"')
            return None
        return int(text)

    def items(self, values: Mapping[str, Any], key: str, place: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the objects of a list, each with its place."""
        name = f"{place}.{key}" if place else key
        if key not in values:
            self.fault(name, "missing")
            return []
        value = values[key]
        if not isinstance(value, list) or not value:
            self.fault(name, "not a list of objects", "at least one", "[]" if value == [] else kind_of(value))
            return []
        found = []
        for index, item in enumerate(value):
            if isinstance(item, dict):
                found.append((f"{name}[{index}]", item))
            else:
                self.fault(f"{name}[{index}]", "not an object", found=kind_of(item))
        return found

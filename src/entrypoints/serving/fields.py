"""Read a request field by field, and collect everything that is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NoReturn

from glm3.domain.errors import Glm3Error, InvalidInputError, MultipleFaultsError

__all__ = ["Fields", "parse_object"]

_SHOWN = 80  # characters of a value in a message


def parse_object(body: bytes | str, what: str = "the body") -> dict[str, Any]:
    """Return the JSON object that ``body`` holds; NaN and Infinity are no JSON. ``what`` names it in errors.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidInputError(f"{what} is nested too deeply", expected="a JSON object") from None
    except ValueError as error:  # bad JSON, bad UTF-8, numbers of thousands of digits
        raise InvalidInputError(f"{what} is not JSON: {error}", expected="a JSON object") from None
    if not isinstance(value, dict):
        raise InvalidInputError(f"{what} is not a JSON object", expected="{...}", found=type(value).__name__)
    return value


class Fields:
    """One object of a request; None is the same as absent, and what nobody reads is unknown.

    Args:
        values: the object, of the types that JSON has.
        where: its own place in the request, for example ``messages[2]``.
        faults: where to collect; objects inside each other share it.
    """

    def __init__(
        self, values: Mapping[str, Any], where: str = "", faults: list[Glm3Error] | None = None
    ) -> None:
        self._values = values
        self._where = where
        self.faults: list[Glm3Error] = [] if faults is None else faults
        self._known: set[str] = set()

    def place(self, name: str) -> str:
        """Return the full name of a field, as errors call it."""
        return f"{self._where}.{name}" if self._where else name

    def fault(self, name: str, message: str, expected: str | None = None, found: object = None) -> None:
        """Take note that a field is wrong."""
        shown = None if found is None else _shown(found)
        self.faults.append(InvalidInputError(message, field=self.place(name), expected=expected, found=shown))

    def raw(self, name: str) -> Any:
        """Return a field as it is, or None."""
        self._known.add(name)
        return self._values.get(name)

    def text(self, name: str) -> str | None:
        """Return a field that holds text."""
        value = self.raw(name)
        if value is None or self.is_text(name, value):
            return value  # type: ignore[no-any-return]
        return None

    def is_text(self, name: str, value: object) -> bool:
        """Tell whether a value is valid text; it is a fault if not."""
        if not isinstance(value, str):
            self.fault(name, "not text", "text", value)
            return False
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            self.fault(name, "not valid Unicode: it holds half a surrogate pair", "text")
            return False
        return True

    def flag(self, name: str) -> bool | None:
        """Return a field that holds true or false."""
        value = self.raw(name)
        if value is None or isinstance(value, bool):
            return value
        self.fault(name, "not a truth value", "true or false", value)
        return None

    def integer(self, name: str, low: int, high: int) -> int | None:
        """Return a field that holds a whole number from ``low`` to ``high``."""
        value = self.raw(name)
        if value is None:
            return None
        whole = isinstance(value, float) and value.is_integer()
        if isinstance(value, bool) or not (isinstance(value, int) or whole) or not low <= value <= high:
            self.fault(
                name,
                "out of range" if isinstance(value, int) else "not a whole number",
                f"{low} to {high}",
                value,
            )
            return None
        return int(value)

    def number(self, name: str, low: float, high: float) -> float | None:
        """Return a field that holds a number from ``low`` to ``high``."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fault(name, "not a number", f"{low:g} to {high:g}", value)
            return None
        if not low <= value <= high or not isfinite(value):
            self.fault(name, "out of range", f"{low:g} to {high:g}", value)
            return None
        return float(value)

    def items(self, name: str) -> Sequence[Any] | None:
        """Return a field that holds a list."""
        value = self.raw(name)
        if value is None or isinstance(value, list):
            return value
        self.fault(name, "not a list", "a list", value)
        return None

    def nested(self, name: str) -> Fields | None:
        """Return a field that holds an object."""
        value = self.raw(name)
        if value is None:
            return None
        return self.object_at(name, value)

    def object_at(self, name: str, value: object) -> Fields | None:
        """Return a reader of an object that lies at ``name``, for example ``messages[2]``."""
        if isinstance(value, Mapping):
            return Fields(value, self.place(name), self.faults)
        self.fault(name, "not an object", "{...}", value)
        return None

    def ignore(self, *names: str) -> None:
        """Accept fields that change nothing here."""
        self._known.update(names)

    def only(self, name: str, *allowed: Any) -> None:
        """Accept a field that is not supported as long as it has a value without effect."""
        value = self.raw(name)
        if value is not None and value not in allowed:
            self.fault(name, "not supported", " or ".join(map(_shown, allowed)) or "no such field", value)

    def refuse_unknown(self) -> None:
        """Take note of every field that nobody has asked for."""
        for name in self._values:
            if name not in self._known:
                self.fault(str(name)[:_SHOWN], "unknown field")

    def raise_faults(self) -> None:
        """Report what was collected.

        Raises:
            Glm3Error: there was something.
        """
        if len(self.faults) == 1:
            raise self.faults[0]
        if self.faults:
            raise MultipleFaultsError("the request has several faults", self.faults)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")

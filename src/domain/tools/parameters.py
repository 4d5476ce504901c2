"""Type hints as JSON schemas, and a model's arguments as values of those types."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from attrs import field, frozen

from glm3.domain.coercion import as_bool, as_float, as_int

__all__ = ["Parameter", "UnsupportedHintError", "ValueType", "value_type"]


class UnsupportedHintError(Exception):
    """A hint has no counterpart in a schema; carries what would have one."""

    def __init__(self) -> None:
        super().__init__("str, int, float, bool, Literal[...], list[...], or one of them | None")


@frozen
class ValueType:
    """One hint: the JSON ``schema`` a model is shown, and a converter.

    ``convert`` raises ValueError with what it would accept.
    """

    schema: dict[str, Any]
    convert: Callable[[object], Any]


@frozen
class Parameter:
    """One argument of a tool. ``required`` is False where the function has a default."""

    name: str
    type: ValueType
    required: bool
    description: str = ""
    default: Any = field(default=None)

    def schema(self) -> dict[str, Any]:
        """Return what a model is told about it."""
        schema = dict(self.type.schema)
        if self.description:
            schema["description"] = self.description
        if not self.required and isinstance(self.default, str | int | float | bool):
            schema["default"] = self.default
        return schema


def value_type(hint: object) -> ValueType:
    """Return the type that a hint means; of ``Annotated`` only the type counts.

    Raises:
        UnsupportedHintError: it has no counterpart.
    """
    if isinstance(hint, type) and hint in _PLAIN:
        return _PLAIN[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return value_type(inner[0])
    if origin is Literal and all(isinstance(value, str | int | bool) for value in inner):
        return ValueType(_enum(inner), partial(_one_of, inner))
    if origin is list and len(inner) == 1:
        item = value_type(inner[0])
        return ValueType({"type": "array", "items": item.schema}, partial(_list_of, item))
    if origin in (Union, types.UnionType) and len(inner) == 2 and type(None) in inner:
        wanted = value_type(next(each for each in inner if each is not type(None)))
        return ValueType(wanted.schema, partial(_or_none, wanted))
    raise UnsupportedHintError


def _text(value: object) -> str:
    """Accept text, and a number as the text it is written as: models forget quotes."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError("text")


_PLAIN: dict[object, ValueType] = {
    str: ValueType({"type": "string"}, _text),
    int: ValueType({"type": "integer"}, as_int),
    float: ValueType({"type": "number"}, as_float),
    bool: ValueType({"type": "boolean"}, as_bool),
}


def _enum(values: Sequence[Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"enum": list(values)}
    return {"type": "string", **schema} if all(isinstance(value, str) for value in values) else schema


def _one_of(values: Sequence[Any], value: object) -> Any:
    for allowed in values:
        if value == allowed and isinstance(value, bool) == isinstance(allowed, bool):
            return allowed
    for allowed in values:
        if str(value) == str(allowed):
            return allowed
    raise ValueError(f"one of {', '.join(map(repr, values))}")


def _list_of(item: ValueType, value: object) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list")
    converted = []
    for index, each in enumerate(value):
        try:
            converted.append(item.convert(each))
        except ValueError as error:
            raise ValueError(f"a list with {error} at [{index}]") from None
    return converted


def _or_none(wanted: ValueType, value: object) -> Any:
    return None if value is None else wanted.convert(value)

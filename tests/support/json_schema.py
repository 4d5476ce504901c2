"""Values that a JSON schema allows, and values that are damaged somewhere, for property tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
"""Any JSON value."""

# What JSON's writer makes of these no reader may take: half a surrogate pair, and three that are no numbers.
_HOSTILE = st.sampled_from(
    ["\ud800", "a\udfff", "\0", float("nan"), float("inf"), -1, 1e308, 10**400, "", [], {}]
)


def values_of(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy of values that ``schema`` allows; references are looked up in ``schemas``."""
    if "$ref" in schema:
        return st.deferred(lambda: values_of(schemas[schema["$ref"].rpartition("/")[2]], schemas))
    if "anyOf" in schema:
        return st.one_of([values_of(each, schemas) for each in schema["anyOf"]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if isinstance(kind, list):
        return st.one_of([values_of({**schema, "type": each}, schemas) for each in kind])
    return _KINDS[kind](schema, schemas)


def damaged(value: Any) -> st.SearchStrategy[Any]:
    """Return a strategy of values that differ from ``value`` in one place: hostile, of any type, or gone."""
    return st.sampled_from(list(_places(value))).flatmap(lambda place: _replaced(value, place))


def matches(value: Any, schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> bool:
    """Tell whether ``schema`` allows a value; of the keywords those are known that our schemas use."""
    if "$ref" in schema:
        return matches(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return any(matches(value, each, schemas) for each in schema["anyOf"])
    if "const" in schema:
        return bool(value == schema["const"])
    if "enum" in schema:
        return value in schema["enum"]
    kinds = schema.get("type")
    if kinds is not None and not any(
        _is(value, kind) for kind in (kinds if isinstance(kinds, list) else [kinds])
    ):
        return False
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        known = schema.get("additionalProperties", True) or value.keys() <= properties.keys()
        return (
            known
            and value.keys() >= set(schema.get("required", ()))
            and all(matches(item, properties.get(name, {}), schemas) for name, item in value.items())
        )
    if isinstance(value, list):
        return all(matches(item, schema.get("items", {}), schemas) for item in value)
    return True


def _is(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    types = {"string": str, "integer": int, "number": (int, float), "array": list, "object": dict}
    return value is None if kind == "null" else kind != "boolean" and isinstance(value, types[kind])  # type: ignore[arg-type]


def _text(schema: Mapping[str, Any], _: object) -> st.SearchStrategy[Any]:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=schema.get("minLength", 0), max_size=12)


def _number(schema: Mapping[str, Any], _: object) -> st.SearchStrategy[Any]:
    return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False)


def _integer(schema: Mapping[str, Any], _: object) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum"), schema.get("maximum")
    small = st.integers(low, min(high, (low or 0) + 20)) if high is not None else st.integers(low)
    return small | st.integers(low, high)


def _list(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    least = schema.get("minItems", 0)
    return st.lists(values_of(schema["items"], schemas), min_size=least, max_size=least + 2)


def _object(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    properties = {name: values_of(each, schemas) for name, each in schema.get("properties", {}).items()}
    required = {name: properties[name] for name in schema.get("required", ())}
    optional = {name: each for name, each in properties.items() if name not in required}
    if not properties:
        return st.dictionaries(st.text(max_size=6), JSON, max_size=2)
    # A few of the optional ones: all of them at once would contradict each other nearly always.
    some = st.lists(st.sampled_from(list(optional)), max_size=3, unique=True) if optional else st.just([])
    return some.flatmap(
        lambda names: st.fixed_dictionaries({**required, **{name: optional[name] for name in names}})
    )


_KINDS: dict[Any, Any] = {
    None: lambda schema, schemas: JSON,
    "string": _text,
    "integer": _integer,
    "number": _number,
    "boolean": lambda schema, schemas: st.booleans(),
    "null": lambda schema, schemas: st.none(),
    "array": _list,
    "object": _object,
}


def _places(value: Any, place: tuple[Any, ...] = ()) -> Any:
    yield place
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _places(item, (*place, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*place, index))


def _replaced(value: Any, place: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    def put(new: Any) -> Any:
        copy = json.loads(json.dumps(value))
        if not place:
            return new
        inner = copy
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = new
        return copy

    def extended(name: str, new: Any) -> Any:
        copy = json.loads(json.dumps(value))
        inner = copy
        for step in place:
            inner = inner[step]
        if isinstance(inner, dict):
            inner[name] = new
        return copy

    return (_HOSTILE | JSON).map(put) | st.builds(extended, st.text(max_size=6), JSON)

"""Read a node into an attrs record whose fields declare key, default, converter and meaning."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from attrs import Attribute, Factory, define, field, fields, frozen

from glm3.domain.run_config.tree import Faults, Node, Origin, plain

__all__ = [
    "Reading",
    "declared_keys",
    "key",
    "many",
    "nearest",
    "optional_section",
    "read_record",
    "section",
    "special",
]

T = TypeVar("T")
Reader = Callable[[Node, str, "Reading"], Any]


@frozen
class _Key:
    meaning: str
    read: Reader


@define
class Reading:
    """What one pass over a configuration gathers: faults, and where each key was given."""

    faults: Faults = field(factory=Faults)
    origins: dict[str, Origin] = field(factory=dict)


def key(default: Any, convert: Callable[[Any], Any], meaning: str) -> Any:
    """Declare a key that holds one value."""

    def read(node: Node, where: str, reading: Reading) -> Any:
        value = plain(node)
        try:
            return convert(value)
        except ValueError as error:
            reading.faults.add(
                "invalid value",
                origin=node.origin,
                field=where,
                expected=error.args[0],
                found=repr(value),
                hint=_list_hint(error.args[0], value),
            )
            return None

    return _declare(default, read, meaning)


def section(record: type[Any], meaning: str) -> Any:
    """Declare a key that holds a section; without it, or null, all of its defaults hold."""
    return _declare(
        Factory(record), lambda node, where, reading: read_record(record, node, where, reading), meaning
    )


def optional_section(record: type[Any], meaning: str) -> Any:
    """Declare a key that holds a section whose absence means that the thing is not there."""

    def read(node: Node, where: str, reading: Reading) -> Any:
        return None if node.value is None else read_record(record, node, where, reading)

    return _declare(None, read, meaning)


def many(record: type[Any], meaning: str) -> Any:
    """Declare a key that holds a list of sections; a single one counts as a list of one."""

    def read(node: Node, where: str, reading: Reading) -> Any:
        if node.value is None:
            return ()
        if isinstance(node.value, dict):
            return (read_record(record, node, where, reading),)
        if not isinstance(node.value, list):
            _expect(node, where, reading, "a list of mappings")
            return ()
        return tuple(
            read_record(record, child, f"{where}.{index}", reading) for index, child in enumerate(node.value)
        )

    return _declare((), read, meaning)


def special(default: Any, read: Reader, meaning: str) -> Any:
    """Declare a key with a reader of its own."""
    return _declare(default, read, meaning)


def read_record(record: type[T], node: Node, where: str, reading: Reading) -> T:
    """Read a mapping into ``record``; what is wrong is noted and replaced by its default."""
    if node.value is None:
        return record()
    if not isinstance(node.value, dict):
        _expect(node, where, reading, "a mapping of keys to values")
        return record()
    known = declared_keys(record)
    accepted: dict[str, Any] = {}
    for name, child in node.value.items():
        place = f"{where}.{name}" if where else name
        if name not in known:
            note_unknown_key(node, name, place, known, reading)
            continue
        reading.origins[place] = _origin_of(node, name)
        before = len(reading.faults.found)
        value = known[name].metadata["key"].read(child, place, reading)
        if len(reading.faults.found) == before:
            accepted[name] = value
    return record(**accepted)


def declared_keys(record: type[Any]) -> dict[str, Attribute[Any]]:
    """Return the fields of a record that are keys of the file."""
    return {attribute.name: attribute for attribute in fields(record) if "key" in attribute.metadata}


def note_unknown_key(node: Node, name: str, place: str, known: Iterable[str], reading: Reading) -> None:
    """Note a key that the schema does not have, with the nearest one it has."""
    known = list(known)
    near = nearest(name, known)
    reading.faults.add(
        "unknown key",
        origin=node.key_origins.get(name, node.origin),
        field=place,
        hint=f"did you mean {near}?" if near else f"known here: {', '.join(known)}",
    )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` was probably meant to be."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _declare(default: Any, read: Reader, meaning: str) -> Any:
    return field(default=default, metadata={"key": _Key(meaning, read)})


def _origin_of(node: Node, name: str) -> Origin:
    child: Node = node.value[name]
    return child.origin if child.origin.given else node.key_origins.get(name, child.origin)


def _expect(node: Node, where: str, reading: Reading, expected: str) -> None:
    reading.faults.add(
        "invalid value",
        origin=node.origin,
        field=where or None,
        expected=expected,
        found=_shown(plain(node)),
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _list_hint(expected: str, value: object) -> str | None:
    wants_list = expected.startswith("a list")
    return "on the command line a list is written as JSON" if wants_list and isinstance(value, str) else None

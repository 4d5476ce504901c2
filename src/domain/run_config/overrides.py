"""Overrides of single keys: ``a.b.c=value``, ``--a.b.c=value`` and ``--a.b.c value``.

Values read like YAML scalars, and as JSON where they are lists, mappings or quoted texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from glm3.domain.errors import UsageError
from glm3.domain.run_config.tree import Faults, Node, Origin

__all__ = ["Override", "apply_overrides", "parse_overrides", "parse_value"]

_INTEGER = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None, "none": None, "~": None}


@frozen
class Override:
    """One key, as its path from the root, and its new value. ``text`` is how the user wrote it."""

    keys: tuple[str, ...]
    value: Any
    text: str


def parse_overrides(arguments: Sequence[str]) -> list[Override]:
    """Read command-line words.

    Raises:
        UsageError: a word is no override, or a key has no value.
    """
    overrides = []
    words = iter(arguments)
    for word in words:
        name, equals, text = word.partition("=")
        written = word
        if not equals:
            if not word.startswith("--"):
                raise _usage("not an override", word)
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise _usage("an override without a value", word)
            text, written = following, f"{word} {following}"
        keys = tuple(name.removeprefix("--").split("."))
        if not all(keys):
            raise _usage("an override with an empty key", word)
        overrides.append(Override(keys, parse_value(text), written))
    return overrides


def parse_value(text: str) -> Any:
    """Return null, bool, int, float, JSON list, mapping or text; whatever is none of these is text.

    >>> [parse_value(text) for text in ("1", "1.0", "1e3", "None", "True", "[1, 2]", "float16")]
    [1, 1.0, 1000.0, None, True, [1, 2], 'float16']
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text) and len(text) < 100:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.startswith(("[", "{", '"')):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def apply_overrides(tree: Node, overrides: Sequence[Override], faults: Faults) -> None:
    """Set every override in the tree, in order; parents that a file leaves out are made.

    A mapping is merged into the mapping that is there, key by key; anything else replaces. Numbers count
    the entries of a list from 0. Unknown keys are left to the schema, which knows the nearest right one.
    """
    for override in overrides:
        _apply(tree, override, faults)


def _apply(tree: Node, override: Override, faults: Faults) -> None:
    origin = Origin(given=override.text)
    node = tree
    for depth, name in enumerate(override.keys):
        if node.value is None:
            node.value = {}
        if not _has_entry(node, name):
            place = ".".join(override.keys[:depth])
            field = ".".join(override.keys[: depth + 1])
            expected = _expected_under(node, place)
            faults.add("no such entry", origin=origin, field=field, expected=expected, found=name)
            return
        if depth + 1 == len(override.keys):
            _set(node, name, override.value, origin)
        elif isinstance(node.value, list):
            node = node.value[int(name)]
        else:
            if name not in node.value:
                node.put(name, Node(None, origin), origin)
            node = node.value[name]


def _has_entry(node: Node, name: str) -> bool:
    """Tell whether ``name`` can be set below ``node``: any key of a mapping, or an entry that a list has."""
    if isinstance(node.value, list):
        return name.isdecimal() and len(name) < 10 and int(name) < len(node.value)
    return isinstance(node.value, dict)


def _expected_under(node: Node, place: str) -> str:
    if isinstance(node.value, list):
        return f"a number below {len(node.value)}, the length of {place}"
    return f"nothing below {place}, which is a single value"


def _set(parent: Node, name: str, value: Any, origin: Origin) -> None:
    """Put a new node into the parent; scalars are never changed in place, an alias may share them."""
    if isinstance(parent.value, list):
        index = int(name)
        if not _merged(parent.value[index], value, origin):
            parent.value[index] = _node(value, origin)
    elif name not in parent.value or not _merged(parent.value[name], value, origin):
        parent.put(name, _node(value, origin), origin)


def _merged(node: Node, value: Any, origin: Origin) -> bool:
    if not (isinstance(value, dict) and isinstance(node.value, dict)):
        return False
    for name, item in value.items():
        _set(node, name, item, origin)
    return True


def _node(value: Any, origin: Origin) -> Node:
    if isinstance(value, dict):
        entries = {name: _node(item, origin) for name, item in value.items()}
        return Node(entries, origin, dict.fromkeys(entries, origin))
    if isinstance(value, list):
        return Node([_node(item, origin) for item in value], origin)
    return Node(value, origin)


def _usage(message: str, word: str) -> UsageError:
    return UsageError(
        message,
        expected="key=value, --key=value or --key value",
        found=repr(word),
        hint="keys are dotted, for example runner_config.epochs=2 or callbacks.1.save_checkpoint_steps=10",
    )

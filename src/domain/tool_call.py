"""Read and write the call of a tool as ChatGLM3 writes it, without ever running it.

A call is one expression ``tool_call(name='value', ...)``, usually in a fenced block opened by
```` ```python ````. Source: the tools part of ChatGLM3's PROMPT.md.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from glm3.domain.call_scanner import CALL_NAME, scan_call
from glm3.domain.conversation import Message, Role, ToolCall
from glm3.domain.errors import InvalidInputError

__all__ = ["fenced_code", "format_tool_call", "parse_tool_call"]

_LONGEST_CALL = 200_000  # characters; more than the 32k context can hold of ordinary text
_DEEPEST_VALUE = 32
_LONGEST_INTEGER = 4096  # bits; Python refuses to print numbers of more than 4300 digits
_FENCE = re.compile(r"```[^\n`]*\n")
_JSON_NAMES = {"true": True, "false": False, "null": None}


def parse_tool_call(name: str, text: str) -> ToolCall | str:
    """Return the call of tool ``name`` that ``text`` holds, or the reason why it cannot be read.

    Text around the call and a missing closing fence are accepted. Arguments are keywords with literal
    values: text, numbers, booleans, None (``true``, ``false``, ``null`` too), lists, tuples (read as
    lists) and dicts with text keys. Nothing is evaluated.
    """
    if len(text) > _LONGEST_CALL:
        return f"the call is longer than {_LONGEST_CALL} characters"
    block = fenced_code(text)
    call = scan_call(text if block is None or CALL_NAME not in block else block)
    if isinstance(call, str):
        return call
    if repeated := {keyword for keyword in call.keywords if call.keywords.count(keyword) > 1}:
        return f"the argument {min(repeated)} is given more than once"
    try:
        node = _parse_expression(call.source)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            return "not a single call"
        if node.args or len(node.keywords) != len(call.keywords):
            return "arguments must be given by name, without * or **"
        values = [_literal(keyword.value, 1) for keyword in node.keywords]
    except _NotLiteralError as error:
        return str(error)
    return ToolCall(name, dict(zip(call.keywords, values, strict=True)))


def format_tool_call(name: str, arguments: Mapping[str, Any]) -> Message:
    """Return the assistant message that makes the call, with Python literals as values.

    Raises:
        InvalidInputError: an argument's name is not an identifier, or a value is not plain JSON.
    """
    written = []
    for key, value in arguments.items():
        if not re.fullmatch(r"[^\W\d]\w*", key):
            raise InvalidInputError(
                "not a name for an argument", field=name, expected="an identifier", found=repr(key)
            )
        try:
            written.append(f"{key}={_plain(value, 1)!r}")
        except _NotLiteralError as error:
            raise InvalidInputError(str(error), field=f"{name}.{key}", expected="plain JSON values") from None
    return Message(Role.ASSISTANT, f"```python\n{CALL_NAME}({', '.join(written)})\n```", name)


def fenced_code(text: str) -> str | None:
    """Return what the first fenced block holds, up to its closing fence or the end, or None without one."""
    opening = _FENCE.search(text)
    if opening is None:
        return None
    closing = text.rfind("```", opening.end())
    return text[opening.end() : closing if closing >= 0 else None]


class _NotLiteralError(Exception):
    """Carries the reason."""


def _parse_expression(source: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the model's odd escapes are not this program's fault
            return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise _NotLiteralError(f"not a valid expression: {error.args[0] if error.args else error}") from None
    except (RecursionError, MemoryError):
        raise _NotLiteralError("the call is nested too deeply") from None


def _literal(node: ast.expr, depth: int) -> Any:
    match node:
        case ast.Constant(value=value):
            return _plain(value, depth)
        case ast.Name(id=name) if name in _JSON_NAMES:
            return _JSON_NAMES[name]
        case ast.UnaryOp(
            op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as number)
        ):
            if isinstance(number, bool):
                raise _NotLiteralError("a sign in front of a truth value")
            return _plain(-number if isinstance(sign, ast.USub) else number, depth)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            _check_depth(depth)
            return [_literal(item, depth + 1) for item in items]
        case ast.Dict(keys=keys, values=values):
            _check_depth(depth)
            pairs = zip(keys, values, strict=True)
            return {_literal_key(key): _literal(value, depth + 1) for key, value in pairs}
    raise _NotLiteralError(f"an argument is not a literal value: {type(node).__name__}")


def _literal_key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return str(_plain(node.value, 1))
    raise _NotLiteralError("a dict has a key that is not text")


def _plain(value: object, depth: int) -> Any:
    """Return a value made of JSON's types, tuples as lists; anything else is refused."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > _LONGEST_INTEGER:
            raise _NotLiteralError("a number has too many digits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _NotLiteralError("a number is not finite")
        return value
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise _NotLiteralError("a text holds half a surrogate pair")
        return value
    if isinstance(value, (list, tuple)):
        _check_depth(depth)
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        _check_depth(depth)
        if not all(isinstance(key, str) for key in value):
            raise _NotLiteralError("a dict has a key that is not text")
        return {_plain(key, depth): _plain(item, depth + 1) for key, item in value.items()}
    raise _NotLiteralError(f"a value is not plain JSON: {type(value).__name__}")


def _check_depth(depth: int) -> None:
    if depth > _DEEPEST_VALUE:
        raise _NotLiteralError(f"a value is nested more than {_DEEPEST_VALUE} deep")

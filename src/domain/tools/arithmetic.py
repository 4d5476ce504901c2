"""Compute arithmetic that a model writes, with a parser of its own: nothing else can be said in it.

Precedence is Python's: ``+ -``, then ``* / // %``, then signs, then ``**`` (also ``^``), which binds to the
right. ``×``, ``÷`` and full-width brackets are read too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

from glm3.domain.errors import InvalidInputError

__all__ = ["evaluate"]

Number = int | float

_LONGEST = 500  # characters
_DEEPEST = 40  # brackets, signs and powers inside each other
_LARGEST = 4096  # bits of a whole number: Python prints no more than 4300 digits

_TOKEN = re.compile(
    r"\s*(?:(\d+\.\d*(?:e[+-]?\d+)?|\.?\d+(?:e[+-]?\d+)?)|([a-z]\w*)|(\*\*|//|[-+*/%^(),]))", re.I
)
_READ_AS = str.maketrans({"×": "*", "÷": "/", "（": "(", "）": ")", "，": ",", "−": "-"})
_CONSTANTS = {"pi": math.pi, "e": math.e}
_FUNCTIONS: dict[str, tuple[int, int, Callable[..., Number]]] = {
    "abs": (1, 1, abs),
    "ceil": (1, 1, math.ceil),
    "cos": (1, 1, math.cos),
    "exp": (1, 1, math.exp),
    "floor": (1, 1, math.floor),
    "log": (1, 2, math.log),
    "log10": (1, 1, math.log10),
    "max": (1, 20, lambda *values: max(values)),
    "min": (1, 20, lambda *values: min(values)),
    "round": (1, 2, lambda value, digits=None: round(value, digits if digits is None else _small(digits))),
    "sin": (1, 1, math.sin),
    "sqrt": (1, 1, math.sqrt),
    "tan": (1, 1, math.tan),
}
"""Least and most arguments, and the function."""


def evaluate(expression: str) -> Number:
    """Return the value of an expression; whole numbers stay exact.

    Raises:
        InvalidInputError: it is no arithmetic, has no finite value, or is too large to compute.
    """
    if len(expression) > _LONGEST:
        raise InvalidInputError("the expression is too long", expected=f"at most {_LONGEST} characters")
    parser = _Parser(list(_tokens(expression.translate(_READ_AS))))
    try:
        value = parser.whole()
    except ZeroDivisionError:
        raise InvalidInputError("division by zero") from None
    except OverflowError:
        raise InvalidInputError("the value is too large") from None
    except ValueError as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"no real value: {error}") from None
    return _checked(value)


def _tokens(text: str) -> Iterator[str]:
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise InvalidInputError("not arithmetic", found=text[position : position + 20].strip())
        yield match[match.lastindex or 0].lower()
        position = match.end()


class _Parser:
    """Recursive descent; values are computed while reading."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Number:
        value = self._sum()
        if self._peek():
            raise InvalidInputError("not arithmetic", expected="an operator", found=self._peek())
        return value

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _expect(self, wanted: str) -> None:
        if (token := self._take()) != wanted:
            raise InvalidInputError("not arithmetic", expected=wanted, found=token or "the end")

    def _sum(self) -> Number:
        value = self._product()
        while (sign := self._peek()) in ("+", "-"):
            self._take()
            other = self._product()
            value = _checked(value + other if sign == "+" else value - other)
        return value

    def _product(self) -> Number:
        value = self._signed()
        while (sign := self._peek()) in ("*", "/", "//", "%"):
            self._take()
            value = _checked(_multiplied(sign, value, self._signed()))
        return value

    def _signed(self) -> Number:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise InvalidInputError("nested too deeply", expected=f"at most {_DEEPEST} levels")
        if self._peek() in ("+", "-"):
            value = -self._signed() if self._take() == "-" else self._signed()
        else:
            value = self._atom()
            if self._peek() in ("**", "^"):
                self._take()
                value = _checked(_power(value, self._signed()))
        self._depth -= 1
        return value

    def _atom(self) -> Number:
        token = self._take()
        if token == "(":  # noqa: S105  # a bracket
            value = self._sum()
            self._expect(")")
            return value
        if token[:1].isdigit() or token[:1] == ".":
            return _checked(int(token) if token.isdigit() else float(token))
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if token in _FUNCTIONS:
            return self._call(token)
        known = ", ".join([*_FUNCTIONS, *_CONSTANTS])
        raise InvalidInputError("not arithmetic", expected=f"a number, or {known}", found=token or "the end")

    def _call(self, name: str) -> Number:
        least, most, function = _FUNCTIONS[name]
        self._expect("(")
        arguments = [self._sum()]
        while self._peek() == ",":
            self._take()
            arguments.append(self._sum())
        self._expect(")")
        if not least <= len(arguments) <= most:
            expected = f"{least} to {most} values" if least < most else f"{least} value"
            raise InvalidInputError(
                "wrong number of values", field=name, expected=expected, found=len(arguments)
            )
        return _checked(function(*arguments))


def _multiplied(sign: str, left: Number, right: Number) -> Number:
    if sign == "*":
        return left * right
    if sign == "/":
        exact = isinstance(left, int) and isinstance(right, int) and right and left % right == 0
        return left // right if exact else left / right
    return left // right if sign == "//" else left % right


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1:
        if exponent * base.bit_length() > 2 * _LARGEST:  # more than the limit whatever the base
            raise OverflowError
        if exponent < -2 * _LARGEST:
            return 0.0
    value = base**exponent
    if isinstance(value, complex):
        raise InvalidInputError("no real value", found=f"{base} ** {exponent}")
    return value


def _small(digits: Number) -> int:
    if digits != int(digits) or abs(digits) > 20:
        raise InvalidInputError("wrong number of digits", expected="a whole number up to 20", found=digits)
    return int(digits)


def _checked(value: Number) -> Number:
    if isinstance(value, int):
        if value.bit_length() > _LARGEST:
            raise OverflowError
    elif not math.isfinite(value):
        raise OverflowError
    return value

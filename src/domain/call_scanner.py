"""Find where a ``tool_call(...)`` begins and ends in a model's text, and what its keywords are called."""

from __future__ import annotations

import re

from attrs import frozen

__all__ = ["CALL_NAME", "ScannedCall", "scan_call"]

CALL_NAME = "tool_call"

_OPENING = re.compile(rf"(?<![\w.]){CALL_NAME}\s*\(")
_GOES_ON = re.compile(r"[(\[]|\.\w|[ \t]*(?:[-+*/%|&^<>=;]|(?:or|and|if|for|in|is|not)\b)")
_KEYWORD = re.compile(r"\s*([^\W\d]\w*)\s*=(?!=)")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""' r"|'''(?:\\.|[^\\])*?'''" r'|"(?:\\.|[^\\"\n])*"' r"|'(?:\\.|[^\\'\n])*'",
    re.DOTALL,
)
_COMMENT = re.compile(r"#[^\n]*")
_CHARACTER = re.compile(r"[^\"']", re.DOTALL)


@frozen
class ScannedCall:
    """A call cut out of its text.

    ``source`` is the call with its keywords renamed to ``k0``, ``k1`` and so on, so that names Python
    reserves, ``from`` and ``class`` among them, can be read; ``keywords`` has what the model wrote.
    """

    source: str
    keywords: tuple[str, ...]


def scan_call(text: str) -> ScannedCall | str:
    """Return the only call in ``text``, whatever stands around it, or the reason why there is none."""
    opening = _OPENING.search(text)
    if opening is None:
        return f"no {CALL_NAME}(...) in the text"
    pieces, keywords = [f"{CALL_NAME}("], list[str]()
    position, depth, may_name = opening.end(), 1, True
    while depth:
        if position == len(text):
            return "the call is cut off before its closing bracket"
        if may_name and (keyword := _KEYWORD.match(text, position)):
            pieces.append(f"k{len(keywords)}=")
            keywords.append(keyword[1])
            position, may_name = keyword.end(), False
            continue
        token = (
            _COMMENT.match(text, position)
            or _STRING.match(text, position)
            or _CHARACTER.match(text, position)
        )
        if token is None:
            return "a quoted text is not closed"
        piece, position = token[0], token.end()
        is_comment = piece.startswith("#")
        pieces.append("" if is_comment else piece)
        depth += (piece in "([{") - (piece in ")]}")
        if not (is_comment or piece.isspace()):
            may_name = depth == 1 and piece == ","
    if _OPENING.search(text, position):
        return "there is more than one call"
    if _GOES_ON.match(text, position):
        return "the call is part of a longer expression"
    return ScannedCall("".join(pieces), tuple(keywords))

"""The pieces of a vocabulary, as formats that carry their tokenizer inside need them."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

__all__ = ["Piece", "PieceKind"]


class PieceKind(StrEnum):
    """What a piece stands for."""

    NORMAL = "normal"
    UNKNOWN = "unknown"
    CONTROL = "control"  # never read from text
    BYTE = "byte"  # one byte of a character that has no piece of its own
    UNUSED = "unused"


@frozen
class Piece:
    """One id of a vocabulary; ``score`` is the logarithm of its probability, or its merge rank's negative."""

    text: str
    kind: PieceKind
    score: float = 0.0

"""Port: text to pieces and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from glm3.domain.special_tokens import SpecialTokens
from glm3.domain.vocabulary import Piece

__all__ = ["SupportsBatch", "SupportsFingerprint", "SupportsPieces", "SupportsSave", "Tokenizer"]


class Tokenizer(Protocol):
    """Turn text into ids. Control tokens are never read from text; they exist as ids only."""

    @property
    def special_tokens(self) -> SpecialTokens:
        """The control tokens behind this vocabulary's pieces."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` alone, without a prefix; the empty text has none."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of ``ids``; an incomplete character at the end appears as U+FFFD.

        Control tokens appear as their literal text unless skipped; ids 0, 1, 2 have none.

        Raises:
            TokenizerError: an id lies beyond the vocabulary.
        """
        ...


@runtime_checkable
class SupportsSave(Protocol):
    """A tokenizer whose vocabulary file can be written out unchanged."""

    def save(self, folder: Path) -> Path:
        """Write ``tokenizer.model`` into ``folder`` and return its path."""
        ...


@runtime_checkable
class SupportsBatch(Protocol):
    """A tokenizer that encodes many texts faster together than one by one."""

    def encode_batch(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        """Return what :meth:`Tokenizer.encode` returns for each text.

        Raises:
            TokenizerError: a text cannot be encoded.
        """
        ...


@runtime_checkable
class SupportsFingerprint(Protocol):
    """A tokenizer that can be told from others, so that what it made can be kept for later."""

    @property
    def fingerprint(self) -> str:
        """A digest; two tokenizers that share it give the same ids for every text."""
        ...


@runtime_checkable
class SupportsPieces(Protocol):
    """A tokenizer that can list its vocabulary."""

    def pieces(self) -> Sequence[Piece]:
        """Return what every id stands for, in order, the control tokens at the end."""
        ...

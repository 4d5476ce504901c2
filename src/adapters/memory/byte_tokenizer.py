"""A tokenizer without a vocabulary file: one id per byte."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from glm3.domain.errors import TokenizerError
from glm3.domain.special_tokens import SpecialTokens

__all__ = ["ByteTokenizer"]

_FIRST_BYTE = 3  # behind unk, bos and eos, where sentencepiece has its byte pieces
_REPLACE_BROKEN = dict.fromkeys(range(0xDC80, 0xDD00), "\N{REPLACEMENT CHARACTER}")


class ByteTokenizer:
    """Stand in for a real vocabulary in tests: ids 3 to 258 are bytes, control tokens follow.

    With ``dummy_prefix`` every text starts with a space of its own that decoding drops from the first
    piece only, as ChatGLM3's vocabulary does.
    """

    def __init__(self, *, dummy_prefix: bool = False) -> None:
        self._special = SpecialTokens(_FIRST_BYTE + 256)
        self._prefix = b" " if dummy_prefix else b""

    @property
    def special_tokens(self) -> SpecialTokens:
        return self._special

    def encode(self, text: str) -> list[int]:
        """Return one id per byte of the text's UTF-8 form.

        Raises:
            TokenizerError: the text holds half a surrogate pair.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError("not valid Unicode text", found=repr(text[error.start])) from None
        return [byte + _FIRST_BYTE for byte in self._prefix + data] if data else []

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of ``ids``; each byte that belongs to no character appears as U+FFFD.

        Raises:
            TokenizerError: an id lies beyond the vocabulary.
        """
        text, first = "", True
        for is_byte, run in groupby(ids, self._is_byte):
            if not is_byte:
                text += "".join(self._control_text(token, skip_special_tokens) for token in run)
                continue
            data = bytes(token - _FIRST_BYTE for token in run)
            if first and not text:
                data = data.removeprefix(self._prefix)
            first = False
            text += data.decode(errors="surrogateescape").translate(_REPLACE_BROKEN)
        return text

    def _is_byte(self, token: int) -> bool:
        return _FIRST_BYTE <= token < self._special.num_pieces

    def _control_text(self, token: int, skip: bool) -> str:
        if token >= self._special.vocab_size:
            raise TokenizerError(
                "the token id is out of the vocabulary",
                expected=f"below {self._special.vocab_size}",
                found=token,
            )
        return "" if skip else self._special.name_of(token) or ""

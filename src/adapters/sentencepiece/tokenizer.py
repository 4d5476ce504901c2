"""ChatGLM3's tokenizer: a sentencepiece vocabulary with nine control tokens behind it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from glm3.adapters.sentencepiece.model_file import read_model_file
from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.errors import TokenizerError
from glm3.domain.special_tokens import BOS_ID, EOS_ID, SPECIAL_TOKEN_NAMES, UNK_ID, SpecialTokens
from glm3.domain.vocabulary import Piece, PieceKind

__all__ = ["FILE_NAME", "SentencePieceTokenizer"]

FILE_NAME = "tokenizer.model"

_FIRST_PIECES = {UNK_ID: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>"}
_PROBE = "  a  12\n你好\t👋 "


class SentencePieceTokenizer:
    """Encode and decode exactly as ChatGLM3's own tokenizer, with ``skip_special_tokens`` honoured.

    Raises:
        MissingFileError: there is no such file.
        TokenizerError: the file is truncated, garbage, or another kind of vocabulary.
    """

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        self._path = Path(path)
        self._content = read_model_file(self._path)
        try:
            self._processor = SentencePieceProcessor(model_proto=self._content)
        except RuntimeError as error:
            raise self._unusable("sentencepiece refuses it", None, error) from error
        self._special = SpecialTokens(self._processor.get_piece_size())
        self._check_kind()

    @property
    def special_tokens(self) -> SpecialTokens:
        return self._special

    @property
    def fingerprint(self) -> str:
        """See :class:`glm3.domain.ports.tokenizer.SupportsFingerprint`: the SHA-256 of the file."""
        return sha256(self._content).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` alone, without a prefix; the empty text has none.

        Raises:
            TokenizerError: the text holds half a surrogate pair.
        """
        ids: list[int] = self._processor.encode(_utf8(text))
        return ids

    def encode_batch(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        """Return the ids of each text, computed by ``num_threads`` threads outside the interpreter's lock.

        Raises:
            TokenizerError: a text holds half a surrogate pair.
        """
        rows: list[list[int]] = self._processor.encode(
            [_utf8(text) for text in texts], num_threads=num_threads
        )
        return rows

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of ``ids``; each byte that belongs to no character appears as U+FFFD.

        Only the first piece loses its dummy space.

        Raises:
            TokenizerError: an id lies beyond the vocabulary.
        """
        text: str = self._processor.decode_pieces([self._piece(int(i), skip_special_tokens) for i in ids])
        return text

    def save(self, folder: Path) -> Path:
        """Write ``tokenizer.model`` into ``folder``, byte for byte and atomically, and return its path.

        Raises:
            StorageError: the file system refused.
        """
        target = Path(folder) / FILE_NAME
        with staged_file(target, len(self._content)) as path:
            write_durably(path, self._content)
        return target

    def pieces(self) -> list[Piece]:
        """Return what every id stands for, in order, the control tokens at the end."""
        ordinary = [
            Piece(self._processor.id_to_piece(token), self._kind(token), self._processor.get_score(token))
            for token in range(self._special.num_pieces)
        ]
        return ordinary + [Piece(name, PieceKind.CONTROL) for name in SPECIAL_TOKEN_NAMES]

    def _kind(self, token: int) -> PieceKind:
        if self._processor.is_unknown(token):
            return PieceKind.UNKNOWN
        if self._processor.is_control(token):
            return PieceKind.CONTROL
        if self._processor.is_byte(token):
            return PieceKind.BYTE
        return PieceKind.UNUSED if self._processor.is_unused(token) else PieceKind.NORMAL

    def _piece(self, token: int, skip_special: bool) -> str:
        if token <= EOS_ID:
            return ""
        if token < self._special.num_pieces:
            piece: str = self._processor.id_to_piece(token)
            return piece
        name = self._special.name_of(token)
        if name is None:
            raise TokenizerError(
                "the token id is out of the vocabulary",
                path=self._path,
                expected=f"below {self._special.vocab_size}",
                found=token,
                hint="does this tokenizer belong to the model?",
            )
        return "" if skip_special else name

    def _check_kind(self) -> None:
        for token, expected in _FIRST_PIECES.items():
            found = self._processor.id_to_piece(token) if token < self._special.num_pieces else "nothing"
            if found != expected:
                raise self._unusable(f"piece {token} is not {expected}", expected, found)
        if self.decode(self.encode(_PROBE)) != _PROBE:
            raise self._unusable(
                "it does not keep text as it is",
                "identity normaliser, byte fallback, no removal of spaces",
                repr(self.decode(self.encode(_PROBE))),
            )

    def _unusable(self, reason: str, expected: object, found: object) -> TokenizerError:
        return TokenizerError(
            f"not a ChatGLM3 vocabulary: {reason}",
            path=self._path,
            expected=expected,
            found=found,
            hint="take tokenizer.model from the folder of the ChatGLM3 weights",
        )


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError("not valid Unicode text", found=repr(text[error.start])) from None

"""Use case: show what a model is given and what it learns, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from attrs import frozen

from glm3.domain.errors import InvalidInputError
from glm3.domain.ports.dataset import RowFile
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.special_tokens import BOS_ID, EOS_ID, UNK_ID
from glm3.domain.training.encoding import IGNORE, EncodedRow
from glm3.domain.training.row_layout import RowLayout

__all__ = ["PreviewedRow", "PreviewedToken", "preview_rows"]

_NAMES = {UNK_ID: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>"}


@frozen
class PreviewedToken:
    """An id, the text of its piece, and whether the model learns to say it."""

    id: int
    text: str
    learned: bool


@frozen(kw_only=True)
class PreviewedRow:
    """A row as training sees it, without padding; or the ``fault`` that keeps it out."""

    line: int
    tokens: Sequence[PreviewedToken] = ()
    encoded: EncodedRow | None = None
    fault: InvalidInputError | None = None


def preview_rows(
    file: RowFile, layout: RowLayout, tokenizer: Tokenizer, count: int, skip: int = 0
) -> Iterator[PreviewedRow]:
    """Yield ``count`` rows behind the first ``skip``.

    Raises:
        InvalidInputError, StorageError: the file cannot be read.
    """
    encode = layout.encoder(tokenizer)
    for row in islice(file.read_rows(skip), count):
        try:
            if row.fault is not None:
                raise row.fault
            encoded = encode(layout.parse(row.value))
        except InvalidInputError as error:
            error.path, error.line = file.path, error.line or row.line
            yield PreviewedRow(line=row.line, fault=error)
            continue
        ids = encoded.input_ids[: encoded.length].tolist()
        learned = [False, *(encoded.targets[: encoded.length - 1] != IGNORE).tolist()]
        texts = _piece_texts(tokenizer, ids)
        tokens = [PreviewedToken(*parts) for parts in zip(ids, texts, learned, strict=True)]
        yield PreviewedRow(line=row.line, tokens=tokens, encoded=encoded)


def _piece_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return the text of each piece alone.

    Behind a control token a piece keeps the space that decoding would take from the first one.
    """
    anchor = tokenizer.special_tokens.prefix[1]
    before = tokenizer.decode([anchor])
    return [_NAMES.get(i) or tokenizer.decode([anchor, i]).removeprefix(before) for i in ids]

"""Turns rows into ids and says which of them the model must learn to emit.

Learnt are an answer's own ids and the id that ends it: ``<|user|>`` or ``<|observation|>`` in a chat,
the end of sequence in the bare ADGEN layout. What the caller inserts is never learnt. Tools are shown as
prompts show them, not in the one-line form of ToolAlpaca's rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from attrs import frozen
from tools.tiny_model.adverts import Advert
from tools.tiny_model.dialogues import Dialogue

from glm3.domain.conversation import Role
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.ports.training import MicroBatch
from glm3.domain.prompt import PromptBuilder
from glm3.domain.special_tokens import EOS_ID, PAD_ID
from glm3.domain.training.encoding import IGNORE

__all__ = ["EncodedRow", "batches", "encode_row"]

_WIDTHS = (48, 80, 144, 272)
"""Few widths, since a graph is compiled for every one; the longest 2% of the rows are left out."""


@frozen
class EncodedRow:
    """Ids of one row, and for each whether it is to be learnt."""

    ids: tuple[int, ...]
    learnt: tuple[bool, ...]


def encode_row(tokenizer: Tokenizer, row: Advert | Dialogue) -> EncodedRow:
    """Encode an advert in the bare layout, or a dialogue with its roles."""
    prefix = tokenizer.special_tokens.prefix
    if isinstance(row, Advert):
        prompt = [*prefix, *tokenizer.encode(row.content)]
        answer = [*tokenizer.encode(row.summary), EOS_ID]
        return EncodedRow(tuple(prompt + answer), (False,) * len(prompt) + (True,) * len(answer))
    ids, learnt = list(prefix), [False] * len(prefix)
    builder = PromptBuilder(tokenizer)
    was_answer = False
    for message in row:
        encoded = builder.message_ids(message)
        is_answer = message.role is Role.ASSISTANT
        ids += encoded
        learnt += [was_answer and not is_answer] + [is_answer] * (len(encoded) - 1)
        was_answer = is_answer
    return EncodedRow((*ids, tokenizer.special_tokens.user), (*learnt, was_answer))


def batches(rows: Sequence[EncodedRow], tokens: int, seed: int) -> Iterator[MicroBatch]:
    """Yield the rows once in a seeded order, rows of like length together, about ``tokens`` ids a batch.

    Rows beyond the largest width and incomplete batches are dropped: a width has one shape of batch.
    """
    rng = np.random.default_rng(seed)
    waiting: dict[int, list[EncodedRow]] = {width: [] for width in _WIDTHS}
    for position in rng.permutation(len(rows)):
        row = rows[position]
        width = next((width for width in _WIDTHS if width >= len(row.ids) - 1), None)
        if width is None:
            continue
        waiting[width].append(row)
        if len(waiting[width]) == tokens // width:
            yield _batch(waiting[width], width)
            waiting[width] = []


def _batch(rows: Sequence[EncodedRow], width: int) -> MicroBatch:
    inputs = np.full((len(rows), width), PAD_ID, np.int32)
    labels = np.full((len(rows), width), IGNORE, np.int32)
    for i, row in enumerate(rows):
        count = len(row.ids) - 1
        inputs[i, :count] = row.ids[:-1]
        labels[i, :count] = np.where(row.learnt[1:], row.ids[1:], IGNORE)
    return MicroBatch(inputs, labels)

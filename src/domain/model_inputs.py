"""Rules for what a language model is given: capacity, rows, ids, masks. Every model adapter applies them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glm3.domain.errors import ContextLengthError, InvalidInputError
from glm3.domain.model_config import ModelConfig

__all__ = [
    "check_capacity",
    "check_extension",
    "check_forward",
    "check_row_length",
    "check_targets",
    "check_verified",
]

IntArray = NDArray[np.int64]


class _Rows(Protocol):
    @property
    def rows(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    def length(self, row: int) -> int: ...


def check_capacity(config: ModelConfig, rows: int, capacity: int) -> None:
    """Check the size of a cache that is about to be allocated.

    Raises:
        ContextLengthError: ``capacity`` exceeds the model's ``seq_length``.
        InvalidInputError: a size is not positive.
    """
    if rows < 1 or capacity < 1:
        raise InvalidInputError(
            "a cache needs rows and capacity", expected="at least 1 each", found=f"{rows} rows of {capacity}"
        )
    if capacity > config.seq_length:
        raise ContextLengthError(
            "the cache would exceed the model's context",
            field="capacity",
            expected=f"at most seq_length = {config.seq_length}",
            found=capacity,
        )


def check_extension(
    config: ModelConfig, cache: _Rows, rows: Sequence[int], tokens: Sequence[Sequence[int]]
) -> None:
    """Check one call of ``extend`` before anything is computed or written.

    Raises:
        ContextLengthError: a row would exceed the cache's capacity.
        InvalidInputError: rows repeat or do not exist, a sequence is empty, or an id is out of range.
    """
    if len(rows) != len(tokens) or not rows or len(set(rows)) != len(rows):
        raise InvalidInputError(
            "each extended row needs one sequence",
            expected="distinct rows, as many as sequences",
            found=f"rows {list(rows)}, {len(tokens)} sequences",
        )
    for row, ids in zip(rows, tokens, strict=True):
        if not 0 <= row < cache.rows:
            raise InvalidInputError("no such cache row", expected=f"0 to {cache.rows - 1}", found=row)
        if not len(ids):
            raise InvalidInputError("nothing to extend the row with", field=f"row {row}", found="no ids")
        if cache.length(row) + len(ids) > cache.capacity:
            raise ContextLengthError(
                "the row would exceed its cache",
                field=f"row {row}",
                expected=f"at most capacity = {cache.capacity} tokens",
                found=f"{cache.length(row)} + {len(ids)}",
            )
        _check_ids(config, min(ids), max(ids))


def check_verified(verifiable: int, tokens: Sequence[Sequence[int]]) -> None:
    """Check how many tokens one call of ``verify`` is given.

    Raises:
        InvalidInputError: more than are ``verifiable``, or none.
    """
    count = sum(map(len, tokens))
    if not 1 <= count <= verifiable:
        raise InvalidInputError(
            "tokens that cannot be verified together",
            field="tokens",
            expected=f"1 to {verifiable}",
            found=count,
        )


def check_row_length(current: int, wanted: int) -> None:
    """Check that a cache row of ``current`` tokens can be truncated to ``wanted``.

    Raises:
        InvalidInputError: it holds fewer.
    """
    if not 0 <= wanted <= current:
        raise InvalidInputError(
            "a row can only be shortened", field="length", expected=f"0 to {current}", found=wanted
        )


def check_forward(
    config: ModelConfig,
    input_ids: NDArray[np.integer[Any]],
    attention_mask: IntArray | None,
    position_ids: IntArray | None,
) -> None:
    """Check whole sequences ``(batch, seq)`` and what accompanies them.

    Raises:
        ContextLengthError: ``seq`` exceeds the model's ``seq_length``.
        InvalidInputError: shapes differ, or an id or position is out of range.
    """
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise InvalidInputError(
            "not a batch of sequences", field="input_ids", expected="(batch, seq)", found=input_ids.shape
        )
    if input_ids.shape[1] > config.seq_length:
        raise ContextLengthError(
            "the sequences exceed the model's context",
            field="input_ids",
            expected=f"at most seq_length = {config.seq_length} tokens",
            found=input_ids.shape[1],
        )
    for name, array in (("attention_mask", attention_mask), ("position_ids", position_ids)):
        if array is not None and array.shape != input_ids.shape:
            raise InvalidInputError(
                "shape differs from input_ids", field=name, expected=input_ids.shape, found=array.shape
            )
    if position_ids is not None and not (position_ids.min() >= 0 and position_ids.max() < config.seq_length):
        raise InvalidInputError(
            "position out of range",
            field="position_ids",
            expected=f"0 to {config.seq_length - 1}",
            found=f"{position_ids.min()} to {position_ids.max()}",
        )
    _check_ids(config, int(input_ids.min()), int(input_ids.max()))


def check_targets(config: ModelConfig, input_ids: NDArray[np.int32], targets: NDArray[np.int32]) -> None:
    """Check sequences to learn from: ids as for a forward pass, and a target or -100 for each of them.

    Raises:
        ContextLengthError: ``seq`` exceeds the model's ``seq_length``.
        InvalidInputError: shapes differ, or an id or target is out of range.
    """
    check_forward(config, input_ids, None, None)
    if targets.shape != input_ids.shape:
        raise InvalidInputError(
            "shape differs from input_ids", field="targets", expected=input_ids.shape, found=targets.shape
        )
    supervised = targets[targets != -100]
    if supervised.size:
        _check_ids(config, int(supervised.min()), int(supervised.max()))


def _check_ids(config: ModelConfig, lowest: int, highest: int) -> None:
    if lowest < 0 or highest >= config.padded_vocab_size:
        raise InvalidInputError(
            "token id out of range",
            expected=f"0 to {config.padded_vocab_size - 1}",
            found=lowest if lowest < 0 else highest,
        )

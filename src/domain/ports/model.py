"""Port: a ChatGLM3 network that extends sequences held in a KV cache.

Tensors stay behind the port. What crosses it is ids in, float32 scores out, and an opaque cache whose
rows are independent sequences: prompts of unequal length, chunks and single tokens all go through
:meth:`LanguageModel.extend`, so a batch needs no padding and no mask of the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from glm3.domain.model_config import ModelConfig

__all__ = ["KVCache", "LanguageModel", "SupportsForward", "SupportsParameters", "SupportsVerification"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


class KVCache(Protocol):
    """Keys and values of ``rows`` independent sequences of at most ``capacity`` tokens each.

    They lie in one pool of ``blocks`` blocks of ``block_size`` tokens, which rows take as they grow and give
    back as they are shortened; rows with a common beginning may share its blocks. See
    :class:`~glm3.domain.engine.paged_rows.PagedRows`.
    """

    @property
    def rows(self) -> int: ...

    @property
    def capacity(self) -> int: ...

    @property
    def block_size(self) -> int: ...

    @property
    def blocks(self) -> int: ...

    @property
    def free_blocks(self) -> int: ...

    def length(self, row: int) -> int:
        """Return how many tokens the row holds."""
        ...

    def truncate(self, row: int, length: int) -> None:
        """Forget the row's tokens from ``length`` on; no work is done and no memory moves."""
        ...

    def copy_row(self, source: int, target: int, length: int | None = None) -> None:
        """Make ``target`` hold what ``source`` holds, or its first ``length`` tokens; blocks are shared."""
        ...

    def growth(self, rows: Sequence[int], counts: Sequence[int]) -> int:
        """Return how many free blocks it takes to extend ``rows[i]`` by ``counts[i]`` tokens."""
        ...

    def demand(self, lengths: Mapping[int, int]) -> int:
        """Return how many blocks are held once these rows, and no others, have grown to these lengths."""
        ...


class LanguageModel(Protocol):
    """Score the next token of sequences."""

    @property
    def config(self) -> ModelConfig: ...

    def new_cache(self, rows: int, capacity: int, pool_tokens: int | None = None) -> KVCache:
        """Allocate a cache once; it never grows.

        ``pool_tokens`` is how many tokens it has memory for, all rows together: one full row at least; None
        for all that they may hold.

        Raises:
            ContextLengthError: ``capacity`` exceeds the model's ``seq_length``.
        """
        ...

    def extend(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        """Append ``tokens[i]`` to row ``rows[i]`` and score what follows its last token.

        Args:
            cache: from this model's :meth:`new_cache`.
            rows: distinct rows of the cache.
            tokens: one non-empty sequence of ids a row; lengths may differ.

        Returns:
            Scores ``(len(rows), padded_vocab_size)``, float32.

        Raises:
            ContextLengthError: a row would exceed the cache's capacity.
            BackendError: the pool has too few free blocks; nothing is changed.
        """
        ...


@runtime_checkable
class SupportsForward(Protocol):
    """A model that can score every position of whole sequences at once."""

    def forward(
        self,
        input_ids: IntArray,
        *,
        attention_mask: IntArray | None = None,
        position_ids: IntArray | None = None,
    ) -> FloatArray:
        """Return scores ``(batch, seq, padded_vocab_size)`` of ``input_ids`` ``(batch, seq)``.

        ``attention_mask`` ``(batch, seq)`` has 0 at padding, on either side. Positions default to the
        count of real tokens before each one, so a left-padded row starts at 0.
        """
        ...

    def hidden_states(
        self,
        input_ids: IntArray,
        *,
        attention_mask: IntArray | None = None,
        position_ids: IntArray | None = None,
    ) -> list[FloatArray]:
        """Return ``num_layers + 1`` arrays ``(batch, seq, hidden)``: the embedding, then each block's output.

        The last one is before the final norm, as in ChatGLM3's own code. Padding has no defined value.
        """
        ...


@runtime_checkable
class SupportsVerification(Protocol):
    """A model that scores some tokens in one pass, each to the bit as if it had come alone."""

    @property
    def verifiable(self) -> int:
        """How many tokens of a pass, over all rows, that holds for; 1 where several round differently."""
        ...

    def verify(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        """Append ``tokens[i]`` to row ``rows[i]``, and score what follows each of them.

        Args:
            cache: as in :meth:`LanguageModel.extend`, and so are ``rows``.
            rows: distinct rows of the cache.
            tokens: one non-empty sequence of ids a row, together up to ``verifiable``.

        Returns:
            Scores ``(tokens of all rows, padded_vocab_size)``, float32, one row behind the other: those that
            :meth:`LanguageModel.extend` gives for one token at a time.

        Raises:
            ContextLengthError: a row would exceed the cache's capacity.
            InvalidInputError: there are more tokens than ``verifiable``, or a row gets none.
            BackendError: the pool has too few free blocks; nothing is changed.
        """
        ...


@runtime_checkable
class SupportsParameters(Protocol):
    """A model whose weights can be read and replaced."""

    def parameters(self) -> dict[str, FloatArray]:
        """Return every parameter by Hugging Face name, float32; arrays may be views of live weights."""
        ...

"""The seam between the network and what computes it: a small set of operations in two groups.

Whole-sequence operations are differentiable and work both eagerly and inside a compiled graph. Cached
operations run eagerly, for inference. Rows of activations are always packed: ``(tokens, width)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.domain.model_config import ModelConfig

__all__ = ["Extension", "HeadLayout", "Kernels", "Tensor"]

Tensor = Any
"""A ``mindspore.Tensor`` or ``Parameter``; MindSpore ships no types."""


@frozen
class HeadLayout:
    """How the columns of a joined query, key and value projection are cut, in this order."""

    num_heads: int
    num_kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: ModelConfig) -> HeadLayout:
        return cls(config.num_attention_heads, config.num_kv_heads, config.kv_channels)

    @property
    def group(self) -> int:
        """Consecutive query heads that share one key and value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim


@frozen
class Extension:
    """What one cached pass appends: ``lengths[i]`` tokens to a row of the cache that holds ``starts[i]``.

    The tokens of all rows are packed one row after another, without padding. ``tables[i]`` names the blocks,
    of ``block_size`` places each, that a row has in the pool.
    """

    starts: Sequence[int]
    lengths: Sequence[int]
    tables: Sequence[Sequence[int]]
    block_size: int

    @property
    def positions(self) -> NDArray[np.int64]:
        """Position of each packed token in its own row, ``(tokens,)``."""
        spans = zip(self.starts, self.lengths, strict=True)
        return np.concatenate([np.arange(start, start + length) for start, length in spans])


class Kernels(Protocol):
    """One implementation of the operations, bound to a :class:`HeadLayout`."""

    def with_layout(self, layout: HeadLayout) -> Kernels:
        """Return the same implementation for other heads."""
        ...

    def recompute(self) -> None:
        """Let the backward pass compute the operators again that a cell's ``recompute`` does not reach."""
        ...

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        """Return the rows ``ids (tokens,)`` of ``weight (vocab, hidden)``, in float32."""
        ...

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x @ weight.T + bias``: ``(tokens, in)`` by ``(out, in)`` to ``(tokens, out)``."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Return ``x * rsqrt(mean(x^2) + epsilon) * weight`` over the last axis."""
        ...

    def swiglu(self, h: Tensor) -> Tensor:
        """Return ``silu(first half) * second half``: ``(tokens, 2 * ffn)`` to ``(tokens, ffn)``."""
        ...

    def attention(self, qkv: Tensor, cos: Tensor, sin: Tensor, batch: int, seq: int) -> Tensor:
        """Rotate queries and keys, then attend causally within each whole sequence.

        ``qkv`` is ``(batch * seq, qkv_size)`` with its bias added; ``cos`` and ``sin`` are
        ``(seq, rotary_dim / 2)``, one row for each place in a sequence. Returns
        ``(batch * seq, num_heads * head_dim)``.
        """
        ...

    def prefix_attention(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, batch: int, seq: int, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Do what :meth:`attention` does over a prefix too, which all tokens of all sequences see.

        ``keys`` and ``values`` are the prefix's, ``(length, num_kv_heads * head_dim)``; keys are not rotated.
        """
        ...

    def dropout(self, x: Tensor, key: Tensor, rate: float) -> Tensor:
        """Return ``x`` with a share ``rate`` of its numbers zero and the others times ``1 / (1 - rate)``.

        Which ones follows from their place and ``key``, a uint32 scalar, alone: the same in every set.
        """
        ...

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss over labels other than -100, a scalar: sum / (count + 1e-8), in float32.

        ``logits`` is ``(tokens, vocab)``; ``labels`` ``(tokens,)`` int32, already at the scored positions.
        """
        ...

    def sum_of_squares(self, x: Tensor) -> Tensor:
        """Return the sum of the squares of float32 ``x``, a scalar; not finite unless every number is."""
        ...

    def adamw(
        self,
        parameters: Sequence[Tensor],
        means: Sequence[Tensor],
        squares: Sequence[Tensor],
        gradients: Sequence[Tensor],
        settings: Tensor,
    ) -> Tensor:
        """Take one step of AdamW in place and return a scalar that is there once it is done.

        All are float32. ``settings`` ``(11,)`` holds what
        :func:`~glm3.adapters.mindspore.kernels.adamw.step_settings` lists, then a factor for the gradients,
        then 0 to leave everything as it is.
        """
        ...

    def plan(self, extension: Extension, cos: NDArray[np.float32], sin: NDArray[np.float32]) -> Any:
        """Prepare what every layer of one cached pass shares; ``cos`` and ``sin`` cover all positions."""
        ...

    def cached_attention(self, qkv: Tensor, keys: Tensor, values: Tensor, plan: Any) -> Tensor:
        """Write rotated keys and values of the new tokens into the cache in place, then attend over it.

        ``qkv`` is ``(tokens, qkv_size)``, packed as :class:`Extension` says, with its bias added; ``keys``
        and ``values`` are this layer's pools ``(blocks, block_size, num_kv_heads, head_dim)``. Returns
        ``(tokens, num_heads * head_dim)``.
        """
        ...

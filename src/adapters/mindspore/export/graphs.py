"""Prefill and decode as whole graphs over pools of key and value blocks."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import ParameterTuple, nn, ops

from glm3.adapters.mindspore.inference.paged_cache import cache_pools
from glm3.adapters.mindspore.kernels.ascend.kernels import AscendKernels, prefill_plan
from glm3.adapters.mindspore.kernels.base import Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.domain.errors import InvalidInputError

__all__ = ["DecodeGraph", "PrefillGraph"]


class _CachedGraph(nn.Cell):
    """A network with its pools; those of one graph may be given to another."""

    def __init__(self, network: ChatGLMNetwork, num_blocks: int, pools: ParameterTuple | None = None) -> None:
        super().__init__(auto_prefix=False)
        if not isinstance(network.kernels, AscendKernels):
            raise InvalidInputError(
                "only the Ascend kernels have a cache of blocks",
                field="kernels",
                expected="ascend",
                found=type(network.kernels).__name__,
            )
        self.network = network
        self.kernels = network.kernels
        if pools is None:
            made = cache_pools(network.config, num_blocks, network.kernels.dtype)
            pools = ParameterTuple([pool for pair in made for pool in pair])
        self.pools = pools

    def _extend(self, ids: Tensor, plan: Any) -> Tensor:
        x = self.kernels.embedding(ids, self.network.word_embeddings)
        for i in range(len(self.network.layers)):
            x = self.network.layers[i].extend(x, self.pools[2 * i], self.pools[2 * i + 1], plan)
        return x


class PrefillGraph(_CachedGraph):
    """Write whole prompts into the cache and score what follows each."""

    def construct(self, input_ids: Tensor, lengths: Tensor, slot_mapping: Tensor) -> Tensor:
        """Return scores ``(batch, vocab)``.

        ``input_ids (batch, seq)`` are padded on the right, ``lengths (batch,)`` says how many are real, and
        ``slot_mapping (batch * seq,)`` where each goes; all are int32.
        """
        batch, seq = input_ids.shape
        cos, sin = self.kernels.angles(self.network.cos[:seq], self.network.sin[:seq])
        plan = prefill_plan(cos, sin, slot_mapping, batch, seq)
        x = self._extend(input_ids.reshape(-1), plan)
        last = ops.arange(0, batch, 1, dtype=ms.int32) * seq + lengths - 1
        return self.network.output(ops.gather(x, last, 0))


class DecodeGraph(_CachedGraph):
    """Append one token to each sequence and score what follows it."""

    def construct(
        self, input_ids: Tensor, positions: Tensor, slot_mapping: Tensor, block_tables: Tensor
    ) -> Tensor:
        """Return scores ``(tokens, vocab)``.

        ``input_ids``, ``positions`` and ``slot_mapping`` are ``(tokens,)``, ``block_tables``
        ``(tokens, blocks)``; all are int32.
        """
        cos, sin = self.kernels.angles(
            ops.gather(self.network.cos, positions, 0), ops.gather(self.network.sin, positions, 0)
        )
        plan = ("decode", cos, sin, slot_mapping, block_tables, positions + 1)
        return self.network.output(self._extend(input_ids, plan))

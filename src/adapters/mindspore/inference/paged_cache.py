"""The KV cache as pools of blocks, for kernels with paged attention."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter
from mindspore.common.initializer import initializer

from glm3.adapters.mindspore.kernels.base import Extension, HeadLayout, Tensor
from glm3.domain.engine.paged_rows import PagedRows
from glm3.domain.model_config import ModelConfig

__all__ = ["PagedCache", "cache_pools"]


def cache_pools(config: ModelConfig, num_blocks: int, dtype: object) -> list[tuple[Tensor, Tensor]]:
    """Make each layer's pools ``(blocks, block_size, num_kv_heads, head_dim)`` of keys and values, zeros."""
    layout = HeadLayout.of(config)
    shape = (num_blocks, config.block_size, layout.num_kv_heads, layout.head_dim)

    def pool(name: str) -> Tensor:
        return Parameter(initializer("zeros", shape, dtype), name=name, requires_grad=False)

    return [(pool(f"key_cache.{i}"), pool(f"value_cache.{i}")) for i in range(config.num_layers)]


class PagedCache(PagedRows):
    """Keys and values in the pools of :func:`cache_pools`."""

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        capacity: int,
        dtype: object = ms.float16,
        pool_tokens: int | None = None,
    ) -> None:
        super().__init__(rows, capacity, config.block_size, pool_tokens)
        self.layers = cache_pools(config, self.blocks, dtype)

    def copy_block(self, source: int, target: int) -> None:
        for pools in self.layers:
            for pool in pools:
                pool[target] = pool[source]

    def extension(self, rows: Sequence[int], lengths: Sequence[int]) -> Extension:
        """Make room for ``lengths[i]`` tokens in ``rows[i]`` and say where they go.

        Raises:
            BackendError: the pool has too few free blocks.
        """
        starts = [self.length(row) for row in rows]
        self.grow(rows, lengths)
        return Extension(starts, lengths, [self.table(row) for row in rows], self.block_size)

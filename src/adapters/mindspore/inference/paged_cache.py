"""The KV cache as pools of blocks, for kernels with paged attention."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter
from mindspore.common.initializer import initializer

from glm3.adapters.mindspore.kernels.base import Extension, HeadLayout, Tensor
from glm3.domain.engine.block_manager import BlockManager
from glm3.domain.model_config import ModelConfig
from glm3.domain.model_inputs import check_row_length

__all__ = ["PagedCache", "cache_pools"]


def cache_pools(config: ModelConfig, num_blocks: int, dtype: object) -> list[tuple[Tensor, Tensor]]:
    """Make each layer's pools ``(blocks, block_size, num_kv_heads, head_dim)`` of keys and values, zeros."""
    layout = HeadLayout.of(config)
    shape = (num_blocks, config.block_size, layout.num_kv_heads, layout.head_dim)

    def pool(name: str) -> Tensor:
        return Parameter(initializer("zeros", shape, dtype), name=name, requires_grad=False)

    return [(pool(f"key_cache.{i}"), pool(f"value_cache.{i}")) for i in range(config.num_layers)]


class PagedCache:
    """Keys and values of ``rows`` sequences, whose blocks a manager hands out as they grow.

    Rows that were copied share their blocks until one of them writes.
    """

    def __init__(self, config: ModelConfig, rows: int, capacity: int, dtype: object = ms.float16) -> None:
        self.capacity = capacity
        self.rows = rows
        per_row = -(-capacity // config.block_size)
        self.blocks = BlockManager(rows * per_row, config.block_size, max_length=capacity)
        self.layers = cache_pools(config, rows * per_row, dtype)
        for row in range(rows):
            self.blocks.allocate(row)

    def length(self, row: int) -> int:
        return self.blocks.length(row)

    def truncate(self, row: int, length: int) -> None:
        check_row_length(self.blocks.length(row), length)
        self.blocks.truncate(row, length)

    def copy_row(self, source: int, target: int) -> None:
        if source != target:
            self.blocks.free(target)
            self.blocks.fork(source, target)

    def extension(self, rows: Sequence[int], lengths: Sequence[int]) -> Extension:
        """Make room for ``lengths[i]`` tokens in ``rows[i]`` and say where they go."""
        starts = [self.blocks.length(row) for row in rows]
        for row, length in zip(rows, lengths, strict=True):
            for source, target in self.blocks.append(row, length):
                for pools in self.layers:
                    for pool in pools:
                        pool[target] = pool[source]
        tables = [self.blocks.table(row) for row in rows]
        return Extension(rows, starts, lengths, tables, self.blocks.block_size)

"""The language model port over the Ascend kernel set: a MindSpore model whose cache is made of blocks."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from numpy.typing import NDArray

from glm3.adapters.mindspore.inference.paged_cache import PagedCache
from glm3.adapters.mindspore.kernels.ascend.kernels import AscendKernels
from glm3.adapters.mindspore.model import MindSporeModel
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.domain.errors import BackendError, InvalidInputError
from glm3.domain.model_inputs import check_capacity, check_extension
from glm3.domain.ports.model import KVCache
from glm3.domain.training.prefix import PrefixConfig

__all__ = ["AscendModel"]


class AscendModel(MindSporeModel):
    """Score sequences with a network over :class:`AscendKernels`, fused or by reference."""

    def __init__(self, network: ChatGLMNetwork) -> None:
        kernels = network.kernels
        if not isinstance(kernels, AscendKernels):
            raise BackendError(
                "not a network for Ascend", expected="AscendKernels", found=type(kernels).__name__
            )
        super().__init__(network)
        self._cache_dtype = kernels.dtype

    def new_cache(  # type: ignore[override]
        self, rows: int, capacity: int, pool_tokens: int | None = None
    ) -> PagedCache:
        check_capacity(self.config, rows, capacity)
        return PagedCache(self.config, rows, capacity, self._cache_dtype, pool_tokens)

    def extend(
        self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> NDArray[np.float32]:
        cache = self._own(cache)
        check_extension(self.config, cache, rows, tokens)
        network = self.network
        extension = cache.extension(rows, [len(ids) for ids in tokens])
        plan = network.kernels.plan(extension, network.cos_table, network.sin_table)
        packed = np.concatenate([np.asarray(ids, np.int32) for ids in tokens])
        hidden = network.extend(ms.Tensor.from_numpy(packed), cache.layers, plan)
        if len(packed) > len(rows):
            hidden = hidden[ms.Tensor.from_numpy(np.cumsum(extension.lengths) - 1)]
        scores: NDArray[np.float32] = network.output(hidden).asnumpy().astype(np.float32)
        return scores

    def add_prefix(self, config: PrefixConfig, seed: int = 0) -> None:  # noqa: ARG002  # refused
        raise BackendError("the Ascend kernels keep no learned prefix in their blocks", field="pre_seq_len")

    def _own(self, cache: KVCache) -> PagedCache:  # type: ignore[override]
        if not isinstance(cache, PagedCache):
            raise InvalidInputError(
                "the cache is another model's",
                expected="one from new_cache",
                found=type(cache).__name__,
            )
        return cache

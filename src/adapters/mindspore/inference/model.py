"""The language model port over the native decoder alone: weights in any storage, for inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm3.adapters.mindspore.inference.cache import MindSporeCache
from glm3.adapters.mindspore.inference.decoder import FloatArray, NativeDecoder
from glm3.adapters.mindspore.inference.runner import VERIFIABLE, IntArray, NativeRunner
from glm3.adapters.mindspore.inference.weights import Weights, weights_of_arrays
from glm3.adapters.mindspore.network import rotary_tables, tables_behind
from glm3.domain.errors import InvalidInputError
from glm3.domain.model_config import ModelConfig
from glm3.domain.model_inputs import check_capacity, check_extension, check_forward, check_verified
from glm3.domain.ports.model import KVCache
from glm3.domain.quantization import PackedWeight, dequantize
from glm3.domain.tensors import Array, to_float32
from glm3.domain.training.prefix import PrefixConfig, initial_prefix, prefix_keys_values, replaced_prefix

__all__ = ["NativeModel"]


class NativeModel:
    """Score sequences with packed or plain weights, which may be views of mapped files."""

    def __init__(self, config: ModelConfig, weights: Weights, library: Path, kv_cache: str = "fp32") -> None:
        self._config = config
        self._kv_cache = kv_cache
        self._weights = weights
        self._tables = self._cache_tables = rotary_tables(config)
        self._prefix: dict[str, Array] = {}
        self._learned = np.zeros(
            (0, config.num_layers, 2, config.num_kv_heads, config.kv_channels), np.float32
        )
        self._runner = NativeRunner(config, weights_of_arrays(config, weights), NativeDecoder(library))

    @property
    def config(self) -> ModelConfig:
        return self._config

    def new_cache(self, rows: int, capacity: int, pool_tokens: int | None = None) -> MindSporeCache:
        check_capacity(self._config, rows, capacity)
        return self._allocate(rows, capacity, self._kv_cache, pool_tokens)

    def extend(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        own = self._own(cache)
        check_extension(self._config, own, rows, tokens)
        return self._runner.extend(own, rows, tokens, self._cache_tables)

    @property
    def verifiable(self) -> int:
        return VERIFIABLE

    def verify(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        own = self._own(cache)
        check_verified(VERIFIABLE, tokens)
        check_extension(self._config, own, rows, tokens)
        return self._runner.verify(own, rows, tokens, self._cache_tables)

    def forward(
        self,
        input_ids: IntArray,
        *,
        attention_mask: IntArray | None = None,
        position_ids: IntArray | None = None,
    ) -> FloatArray:
        check_forward(self._config, input_ids, attention_mask, position_ids)
        scores = np.zeros((*input_ids.shape, self._config.padded_vocab_size), np.float32)
        for row, columns, found in self._rows(input_ids, attention_mask, position_ids, self._runner.score):
            scores[row, columns] = found
        return scores

    def hidden_states(
        self,
        input_ids: IntArray,
        *,
        attention_mask: IntArray | None = None,
        position_ids: IntArray | None = None,
    ) -> list[FloatArray]:
        check_forward(self._config, input_ids, attention_mask, position_ids)
        layers = self._config.num_layers + 1
        states = np.zeros((layers, *input_ids.shape, self._config.hidden_size), np.float32)
        for row, columns, found in self._rows(input_ids, attention_mask, position_ids, self._runner.states):
            states[:, row, columns] = found
        return list(states)

    def add_prefix(self, config: PrefixConfig, seed: int = 0) -> None:
        """See :class:`glm3.domain.ports.training.SupportsPrefix`; nothing is trained here."""
        if self._prefix:
            raise InvalidInputError("the model is adapted already", hint="load it anew")
        self._learn(initial_prefix(self._config, config, seed))

    def adapter_parameters(self) -> dict[str, Array]:
        return {name: np.array(array) for name, array in self._prefix.items()}

    def set_adapter_parameters(self, parameters: Mapping[str, Array]) -> None:
        self._learn(replaced_prefix(self._prefix, parameters))

    def parameters(self) -> dict[str, FloatArray]:
        """Return what every parameter stands for, in float32: more memory than the model itself."""
        return {
            name: dequantize(weight)
            if isinstance(weight, PackedWeight)
            else to_float32(weight.array, weight.dtype)
            for name, weight in self._weights.items()
        }

    def _own(self, cache: KVCache) -> MindSporeCache:
        if not isinstance(cache, MindSporeCache) or cache.prefix != len(self._learned):
            raise InvalidInputError(
                "the cache is another model's", expected="one from new_cache", found=type(cache).__name__
            )
        return cache

    def _learn(self, parameters: Mapping[str, Array]) -> None:
        self._prefix = dict(parameters)
        self._learned = prefix_keys_values(self._config, self._prefix)
        self._cache_tables = tables_behind(self._tables, len(self._learned))

    def _allocate(
        self, rows: int, capacity: int, format_: str, pool_tokens: int | None = None
    ) -> MindSporeCache:
        cache = MindSporeCache(self._config, rows, capacity, len(self._learned), format_, pool_tokens)
        cache.write_prefix(self._learned)
        return cache

    def _rows(
        self,
        input_ids: IntArray,
        attention_mask: IntArray | None,
        position_ids: IntArray | None,
        run: Callable[[IntArray, FloatArray, FloatArray, MindSporeCache], FloatArray],
    ) -> Iterator[tuple[int, NDArray[np.int64], FloatArray]]:
        """Run each row without its padding; return which of its columns are real and what they gave."""
        for row, ids in enumerate(input_ids):
            columns = np.arange(len(ids)) if attention_mask is None else np.flatnonzero(attention_mask[row])
            if not len(columns):
                continue
            places = np.arange(len(columns)) if position_ids is None else position_ids[row, columns]
            cos, sin = (table[places] for table in self._tables)
            yield row, columns, run(ids[columns], cos, sin, self._allocate(1, len(columns), "fp32"))

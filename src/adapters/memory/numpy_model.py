"""ChatGLM3 in plain numpy, one sequence at a time: the oracle every faster implementation is held to.

It follows the formulas of the architecture literally and trades speed for being easy to check by eye.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from glm3.adapters.memory.numpy_trainer import NumpyTrainer
from glm3.domain.engine.paged_rows import PagedRows
from glm3.domain.errors import InvalidInputError
from glm3.domain.model_config import ModelConfig
from glm3.domain.model_inputs import check_capacity, check_extension, check_forward
from glm3.domain.parameter_check import require_fit
from glm3.domain.parameters import EMBEDDING, FINAL_NORM, OUTPUT_LAYER, layer_prefix, parameter_shapes
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.model import KVCache
from glm3.domain.tensors import Array
from glm3.domain.training.options import TrainOptions
from glm3.domain.training.prefix import (
    PREFIX_EMBEDDING,
    PREFIX_PROJECTION,
    PrefixConfig,
    initial_prefix,
    is_prefix_parameter,
    replaced_prefix,
)

__all__ = ["NumpyCache", "NumpyModel"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


_BLOCK_SIZE = 4  # small, so that the shortest tests have rows of several blocks


class NumpyCache(PagedRows):
    """Keys and values ``(num_layers, places, num_kv_heads, kv_channels)``; a row's places are its slots."""

    def __init__(self, config: ModelConfig, rows: int, capacity: int, pool_tokens: int | None = None) -> None:
        super().__init__(rows, capacity, _BLOCK_SIZE, pool_tokens)
        places = self.blocks * self.block_size
        shape = (config.num_layers, places, config.num_kv_heads, config.kv_channels)
        self.keys = np.zeros(shape, np.float32)
        self.values = np.zeros(shape, np.float32)

    def copy_block(self, source: int, target: int) -> None:
        size = self.block_size
        for array in (self.keys, self.values):
            array[:, target * size : (target + 1) * size] = array[:, source * size : (source + 1) * size]


class NumpyModel:
    """A ChatGLM3 network over float32 ``parameters`` with Hugging Face names.

    ``observe`` is told the name of each matrix in a block, and what it reads, ``(seq, in)``.

    Raises:
        ParameterMismatchError: a parameter is missing, unexpected or of another shape.
    """

    def __init__(
        self,
        config: ModelConfig,
        parameters: Mapping[str, FloatArray],
        observe: Callable[[str, FloatArray], None] | None = None,
    ) -> None:
        require_fit({name: array.shape for name, array in parameters.items()}, config)
        self._config = config
        self._parameters = {
            name: np.asarray(parameters[name], np.float32) for name in parameter_shapes(config)
        }
        self._prefix: dict[str, FloatArray] = {}
        self._observe = observe

    @classmethod
    def random(cls, config: ModelConfig, seed: int, scale: float = 0.02) -> NumpyModel:
        """Build a model of normal weights and biases; norm weights lie around 1."""
        generator = np.random.default_rng(seed)
        parameters = {}
        for name, shape in parameter_shapes(config).items():
            array = scale * generator.standard_normal(shape, np.float32)
            parameters[name] = array + 1 if name.endswith("layernorm.weight") else array
        return cls(config, parameters)

    @property
    def config(self) -> ModelConfig:
        return self._config

    def parameters(self) -> dict[str, FloatArray]:
        return dict(self._parameters)

    def replace(self, parameters: Mapping[str, FloatArray]) -> None:
        """Compute with other arrays of the same names and shapes from now on."""
        for name, array in parameters.items():
            (self._prefix if is_prefix_parameter(name) else self._parameters)[name] = array

    def trainer(self, options: TrainOptions, communicator: Communicator) -> NumpyTrainer:
        """See :class:`glm3.domain.ports.training.SupportsTraining`; the output layer or a prefix learns."""
        return NumpyTrainer(self, options, communicator)

    def add_prefix(self, config: PrefixConfig, seed: int = 0) -> None:
        """See :class:`glm3.domain.ports.training.SupportsPrefix`; there is no dropout."""
        if self._prefix:
            raise InvalidInputError("the model is adapted already", hint="load it anew")
        self._prefix = initial_prefix(self.config, config, seed)

    def adapter_parameters(self) -> dict[str, Array]:
        return {name: np.array(array) for name, array in self._prefix.items()}

    def set_adapter_parameters(self, parameters: Mapping[str, Array]) -> None:
        self._prefix = replaced_prefix(self._prefix, parameters)

    @property
    def output_weight(self) -> FloatArray:
        """The matrix ``(padded_vocab_size, hidden)`` that makes scores of :meth:`normed_states`."""
        return self._parameters[OUTPUT_LAYER]

    def normed_states(self, input_ids: IntArray) -> FloatArray:
        """Return what the output layer reads, ``(batch, seq, hidden)``."""
        hidden = self.hidden_states(input_ids)[-1]
        return self._rms_norm(hidden, FINAL_NORM) if self.config.post_layer_norm else hidden

    def new_cache(self, rows: int, capacity: int, pool_tokens: int | None = None) -> NumpyCache:
        check_capacity(self.config, rows, capacity)
        return NumpyCache(self.config, rows, capacity, pool_tokens)

    def extend(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        if not isinstance(cache, NumpyCache):
            raise InvalidInputError(
                "the cache is another model's",
                expected="one from new_cache",
                found=type(cache).__name__,
            )
        check_extension(self.config, cache, rows, tokens)
        cache.grow(rows, [len(ids) for ids in tokens])
        scores = []
        for row, ids in zip(rows, tokens, strict=True):
            positions = np.arange(cache.length(row) - len(ids), cache.length(row))
            hidden = self._run(np.asarray(ids), positions, cache, row)[-1]
            scores.append(self._output(hidden[-1]))
        return np.stack(scores)

    def forward(
        self,
        input_ids: IntArray,
        *,
        attention_mask: IntArray | None = None,
        position_ids: IntArray | None = None,
    ) -> FloatArray:
        states = self.hidden_states(input_ids, attention_mask=attention_mask, position_ids=position_ids)
        return self._output(states[-1])

    def hidden_states(
        self,
        input_ids: IntArray,
        *,
        attention_mask: IntArray | None = None,
        position_ids: IntArray | None = None,
    ) -> list[FloatArray]:
        check_forward(self.config, input_ids, attention_mask, position_ids)
        batch, seq = input_ids.shape
        layers = self.config.num_layers
        states = np.zeros((layers + 1, batch, seq, self.config.hidden_size), np.float32)
        for row in range(batch):
            real = np.arange(seq) if attention_mask is None else np.flatnonzero(attention_mask[row])
            if not len(real):
                continue
            positions = np.arange(len(real)) if position_ids is None else position_ids[row, real]
            cache = NumpyCache(self.config, 1, len(real))
            cache.grow([0], [len(real)])
            states[:, row, real] = self._run(input_ids[row, real], positions, cache, 0)
        return list(states)

    def _run(self, ids: IntArray, positions: IntArray, cache: NumpyCache, row: int) -> list[FloatArray]:
        """Return ``num_layers + 1`` arrays ``(seq, hidden)``, and write keys and values of the ids."""
        c = self.config
        x = self._parameters[EMBEDDING][ids]
        states = [x]
        learned = self._learned_prefix()
        for layer in range(c.num_layers):
            prefix = layer_prefix(layer)
            normed = self._rms_norm(x, prefix + "input_layernorm.weight")
            attended = self._attention(
                normed, prefix + "self_attention.", positions, cache, layer, row, learned[:, layer]
            )
            x = (normed if c.apply_residual_connection_post_layernorm else x) + attended
            normed = self._rms_norm(x, prefix + "post_attention_layernorm.weight")
            residual = normed if c.apply_residual_connection_post_layernorm else x
            x = residual + self._mlp(normed, prefix + "mlp.")
            states.append(x)
        return states

    def _attention(
        self,
        x: FloatArray,
        prefix: str,
        positions: IntArray,
        cache: NumpyCache,
        layer: int,
        row: int,
        learned: FloatArray,
    ) -> FloatArray:
        c = self.config
        seq, end = len(x), cache.length(row)
        start, slots = end - seq, cache.slots(row)
        joined = self._linear(x, prefix + "query_key_value")
        query, key, value = np.split(
            joined.reshape(seq, -1, c.kv_channels),
            [c.num_attention_heads, c.num_attention_heads + c.num_kv_heads],
            axis=1,
        )
        cache.keys[layer, slots[start:]] = self._rotary(key, positions)
        cache.values[layer, slots[start:]] = value
        group = c.num_attention_heads // c.num_kv_heads  # consecutive query heads share a key head
        keys = np.concatenate([learned[:, 0], cache.keys[layer, slots]]).repeat(group, axis=1)
        values = np.concatenate([learned[:, 1], cache.values[layer, slots]]).repeat(group, axis=1)
        scores = np.einsum("qhd,khd->hqk", self._rotary(query, positions), keys) / np.sqrt(c.kv_channels)
        future = np.arange(-len(learned), end) > np.arange(start, end)[:, None]
        scores = np.where(future, -np.inf, scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        attended = np.einsum("hqk,khd->qhd", weights.astype(np.float32), values)
        return self._linear(attended.reshape(seq, -1), prefix + "dense")

    def _learned_prefix(self) -> FloatArray:
        """Return ``(length, num_layers, 2, num_kv_heads, kv_channels)``: keys, then values."""
        c = self.config
        x = self._prefix.get(PREFIX_EMBEDDING, np.zeros((0, 1), np.float32))
        if PREFIX_PROJECTION[0] in self._prefix:
            inner, inner_bias, outer, outer_bias = (self._prefix[name] for name in PREFIX_PROJECTION)
            x = np.tanh(x @ inner.T + inner_bias) @ outer.T + outer_bias
        return x.reshape(len(x), c.num_layers, 2, c.num_kv_heads, c.kv_channels)

    def _rotary(self, x: FloatArray, positions: IntArray) -> FloatArray:
        """Rotate the channel pairs (0, 1), (2, 3), … in the first half of each head ``(seq, heads, dim)``."""
        rotated = self.config.rotary_dim
        frequencies = self.config.rope_base ** (-np.arange(0, rotated, 2) / rotated)
        angles = positions[:, None, None] * frequencies
        cos, sin = np.cos(angles), np.sin(angles)
        even, odd = x[..., 0:rotated:2], x[..., 1:rotated:2]
        out = x.copy()
        out[..., 0:rotated:2] = even * cos - odd * sin
        out[..., 1:rotated:2] = odd * cos + even * sin
        return out

    def _mlp(self, x: FloatArray, prefix: str) -> FloatArray:
        gate, up = np.split(self._linear(x, prefix + "dense_h_to_4h"), 2, axis=-1)
        return self._linear(gate / (1 + np.exp(-gate)) * up, prefix + "dense_4h_to_h")

    def _rms_norm(self, x: FloatArray, name: str) -> FloatArray:
        rms: FloatArray = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.config.layernorm_epsilon)
        return x / rms * self._parameters[name]

    def _linear(self, x: FloatArray, name: str) -> FloatArray:
        if self._observe is not None:
            self._observe(name + ".weight", x)
        y = x @ self._parameters[name + ".weight"].T
        return y + self._parameters[name + ".bias"] if name + ".bias" in self._parameters else y

    def _output(self, hidden: FloatArray) -> FloatArray:
        if self.config.post_layer_norm:
            hidden = self._rms_norm(hidden, FINAL_NORM)
        return hidden @ self._parameters[OUTPUT_LAYER].T

"""The ChatGLM3 network over a kernel set: one definition for training, scoring and cached decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn
from mindspore.common.initializer import initializer
from numpy.typing import NDArray

from glm3.adapters.mindspore.kernels.base import Kernels, Tensor
from glm3.adapters.mindspore.kernels.stock import widen
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import EMBEDDING, FINAL_NORM, OUTPUT_LAYER, layer_prefix, parameter_shapes
from glm3.domain.tensors import DType

__all__ = ["ChatGLMBlock", "ChatGLMNetwork", "Linear"]

TakeParameter = Callable[[str], Any]


class Linear(nn.Cell):
    """``x @ weight.T + bias`` over parameters made elsewhere; what adapts a layer's weights replaces it."""

    def __init__(self, kernels: Kernels, weight: Parameter, bias: Parameter | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.kernels = kernels
        self.weight = weight
        self.bias = bias

    def construct(self, x: Tensor) -> Tensor:
        return self.kernels.linear(x, self.weight, self.bias)


class ChatGLMBlock(nn.Cell):
    """One transformer block: attention and SwiGLU, each behind a norm and beside a residual."""

    def __init__(self, config: ModelConfig, kernels: Kernels, take: TakeParameter) -> None:
        super().__init__(auto_prefix=False)
        self.kernels = kernels
        self.epsilon = config.layernorm_epsilon
        self.residual_behind_norm = config.apply_residual_connection_post_layernorm
        self.input_layernorm = take("input_layernorm.weight")
        self.post_attention_layernorm = take("post_attention_layernorm.weight")

        def linear(name: str) -> Linear:
            return Linear(kernels, take(name + ".weight"), take(name + ".bias"))

        self.query_key_value = linear("self_attention.query_key_value")
        self.dense = linear("self_attention.dense")
        self.dense_h_to_4h = linear("mlp.dense_h_to_4h")
        self.dense_4h_to_h = linear("mlp.dense_4h_to_h")

    def recompute(self, **options: Any) -> None:
        """Let the backward pass compute the block again, and keep its input alone."""
        super().recompute(**options)
        self.kernels.recompute()

    def construct(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        batch: int,
        seq: int,
        keys: Tensor | None = None,
        values: Tensor | None = None,
    ) -> Tensor:
        """Run whole sequences ``(batch * seq, hidden)``, behind a prefix's keys and values if given."""
        normed = self.kernels.rms_norm(x, self.input_layernorm, self.epsilon)
        qkv = self.query_key_value.construct(normed)
        if keys is None:
            attended = self.kernels.attention(qkv, cos, sin, batch, seq)
        else:
            attended = self.kernels.prefix_attention(qkv, cos, sin, batch, seq, keys, values)
        return self._finish(x, normed, attended)

    def extend(self, x: Tensor, keys: Tensor, values: Tensor, plan: Any) -> Tensor:
        """Run new tokens ``(tokens, hidden)`` over this layer's KV cache."""
        normed = self.kernels.rms_norm(x, self.input_layernorm, self.epsilon)
        attended = self.kernels.cached_attention(self.query_key_value.construct(normed), keys, values, plan)
        return self._finish(x, normed, attended)

    def _finish(self, x: Tensor, normed: Tensor, attended: Tensor) -> Tensor:
        residual = normed if self.residual_behind_norm else x
        x = residual + self.dense.construct(attended)
        normed = self.kernels.rms_norm(x, self.post_attention_layernorm, self.epsilon)
        residual = normed if self.residual_behind_norm else x
        h = self.kernels.swiglu(self.dense_h_to_4h.construct(normed))
        return residual + self.dense_4h_to_h.construct(h)


class ChatGLMNetwork(nn.Cell):
    """ChatGLM3 with parameters that carry their Hugging Face names.

    Parameters start as zeros that take no memory until they are set or used: load weights, or call
    :meth:`initialize` to train from scratch.
    """

    def __init__(self, config: ModelConfig, kernels: Kernels, dtype: DType = DType.FLOAT32) -> None:
        super().__init__(auto_prefix=False)
        self.config = config
        self.kernels = kernels
        self.epsilon = config.layernorm_epsilon
        self.dtype = dtype
        stored = getattr(ms, dtype.value)
        made = {
            name: Parameter(initializer("zeros", shape, stored), name=name)
            for name, shape in parameter_shapes(config).items()
        }
        self.word_embeddings = made[EMBEDDING]
        self.layers = nn.CellList(
            [
                ChatGLMBlock(config, kernels, partial(_take, made, layer_prefix(layer)))
                for layer in range(config.num_layers)
            ],
            auto_prefix=False,
        )
        self.final_layernorm = made.get(FINAL_NORM)
        self.output_layer = Linear(kernels, made[OUTPUT_LAYER])
        self.prefix: nn.Cell | None = None  # makes keys and values of every layer, one after another
        self.cos_table, self.sin_table = rotary_tables(config)
        self.cos = ms.Tensor.from_numpy(self.cos_table)
        self.sin = ms.Tensor.from_numpy(self.sin_table)

    def initialize(self, seed: int, scale: float = 0.02) -> None:
        """Draw weights from N(0, scale²); norm weights become 1, biases 0."""
        generator = np.random.default_rng(seed)
        for parameter in self.get_parameters():
            if parameter.name.endswith("layernorm.weight"):
                array = np.ones(parameter.shape, np.float32)
            elif parameter.name.endswith(".bias"):
                array = np.zeros(parameter.shape, np.float32)
            else:
                array = scale * generator.standard_normal(parameter.shape, np.float32)
            parameter.set_data(ms.Tensor.from_numpy(array).astype(parameter.dtype))

    def construct(self, input_ids: Tensor) -> Tensor:
        """Return logits ``(batch * seq, padded_vocab_size)`` of right-padded int32 ``(batch, seq)``."""
        # Widened before rows are taken: their gradients meet in float32, and no operator takes bfloat16's.
        return self.output(self.hidden(input_ids, table=widen(self.word_embeddings)))

    def hidden(
        self,
        input_ids: Tensor,
        cos: Tensor | None = None,
        sin: Tensor | None = None,
        table: Tensor | None = None,
    ) -> Tensor:
        """Return the last block's output ``(batch * seq, hidden)``, before the final norm.

        ``cos`` and ``sin`` ``(seq, rotary_dim / 2)`` place the tokens elsewhere than at 0, 1, 2, …;
        ``table`` is the embedding, where not the stored one.
        """
        batch, seq = input_ids.shape
        if table is None:
            table = self.word_embeddings
        x = self.kernels.embedding(input_ids.reshape(-1), table)
        return self.blocks(x, batch, seq, cos, sin)

    def blocks(
        self, x: Tensor, batch: int, seq: int, cos: Tensor | None = None, sin: Tensor | None = None
    ) -> Tensor:
        """Run embedded tokens ``(batch * seq, hidden)`` through all blocks, placed as :meth:`hidden` does."""
        if cos is None or sin is None:
            cos, sin = self.cos[:seq], self.sin[:seq]
        prefix = self._prefix()
        for i in range(len(self.layers)):
            x = self.layers[i](x, cos, sin, batch, seq, prefix[2 * i], prefix[2 * i + 1])
        return x

    def output(self, x: Tensor) -> Tensor:
        """Turn hidden states ``(tokens, hidden)`` into logits."""
        if self.final_layernorm is not None:
            x = self.kernels.rms_norm(x, self.final_layernorm, self.epsilon)
        return self.output_layer.construct(x)

    def states(self, input_ids: Tensor, cos: Tensor, sin: Tensor) -> list[Tensor]:
        """Return the embedding and each block's output, ``(batch * seq, hidden)`` each."""
        batch, seq = input_ids.shape
        states = [self.kernels.embedding(input_ids.reshape(-1), self.word_embeddings)]
        prefix = self._prefix()
        for i in range(len(self.layers)):
            states.append(self.layers[i](states[-1], cos, sin, batch, seq, prefix[2 * i], prefix[2 * i + 1]))
        return states

    def _prefix(self) -> Sequence[Tensor | None]:
        if self.prefix is None:
            return (None,) * (2 * len(self.layers))
        return self.prefix()

    def extend(self, ids: Tensor, caches: Sequence[tuple[Tensor, Tensor]], plan: Any) -> Tensor:
        """Run packed new tokens ``(tokens,)`` over the layers' caches: ``(tokens, hidden)``."""
        x = self.kernels.embedding(ids, self.word_embeddings)
        for layer, (keys, values) in zip(self.layers, caches, strict=True):
            x = layer.extend(x, keys, values, plan)
        return x


def _take(made: Mapping[str, Any], prefix: str, suffix: str) -> Any:
    return made.get(prefix + suffix)


def rotary_tables(config: ModelConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cos and sin ``(seq_length, rotary_dim / 2)`` of every position and frequency."""
    exponents = np.arange(0, config.rotary_dim, 2) / config.rotary_dim
    angles = np.outer(np.arange(config.seq_length), config.rope_base**-exponents)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def tables_behind(
    tables: tuple[NDArray[np.float32], NDArray[np.float32]], length: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cos and sin for every place of a cache whose first ``length`` places are not rotated."""
    cos, sin = tables
    unused = np.zeros((length, cos.shape[1]), np.float32)
    return np.concatenate([unused, cos]), np.concatenate([unused, sin])

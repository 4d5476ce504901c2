"""ChatGLM3 over keys and values of the past, in plain torch with its automatic gradients: an oracle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from glm3.domain.model_config import ModelConfig

__all__ = ["TorchPrefixModel"]

Parameters = Mapping[str, NDArray[np.float32]]


class TorchPrefixModel:
    """A network of published kind (no biases but those of the joint projection) behind a prefix encoder."""

    def __init__(self, config: ModelConfig, parameters: Parameters, prefix: Parameters) -> None:
        self.config = config
        self.weights = {name: torch.tensor(array) for name, array in parameters.items()}
        self.prefix = {name: torch.tensor(array, requires_grad=True) for name, array in prefix.items()}

    def past_key_values(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return each layer's keys and values, ``(length, groups, channels)``."""
        c = self.config
        x = self._encoder("embedding.weight")
        if any(".trans." in name for name in self.prefix):
            x = torch.tanh(x @ self._encoder("trans.0.weight").T + self._encoder("trans.0.bias"))
            x = x @ self._encoder("trans.2.weight").T + self._encoder("trans.2.bias")
        stacked = x.view(len(x), 2 * c.num_layers, c.num_kv_heads, c.kv_channels).permute(1, 0, 2, 3)
        return [(pair[0], pair[1]) for pair in stacked.split(2)]

    def logits(self, ids: NDArray[np.integer]) -> torch.Tensor:
        """Return scores ``(batch, seq, vocab)``."""
        c, w = self.config, self.weights
        x = w["transformer.embedding.word_embeddings.weight"][torch.tensor(np.asarray(ids, np.int64))]
        for layer, past in enumerate(self.past_key_values()):
            start = f"transformer.encoder.layers.{layer}."
            x = x + self._attention(self._norm(x, start + "input_layernorm"), start + "self_attention.", past)
            h = self._norm(x, start + "post_attention_layernorm") @ w[start + "mlp.dense_h_to_4h.weight"].T
            gate, up = h.chunk(2, -1)
            x = x + (torch.nn.functional.silu(gate) * up) @ w[start + "mlp.dense_4h_to_h.weight"].T
        if c.post_layer_norm:
            x = self._norm(x, "transformer.encoder.final_layernorm")
        return x @ w["transformer.output_layer.weight"].T

    def loss(self, ids: NDArray[np.integer], targets: NDArray[np.integer]) -> torch.Tensor:
        """Return the mean loss over targets other than -100."""
        wanted = torch.tensor(np.asarray(targets, np.int64).reshape(-1))
        return torch.nn.functional.cross_entropy(self.logits(ids).flatten(0, 1), wanted)

    def _encoder(self, name: str) -> torch.Tensor:
        return self.prefix["transformer.prefix_encoder." + name]

    def _attention(
        self, x: torch.Tensor, start: str, past: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        c, w = self.config, self.weights
        batch, seq, _ = x.shape
        joined = x @ w[start + "query_key_value.weight"].T + w[start + "query_key_value.bias"]
        heads = joined.view(batch, seq, -1, c.kv_channels)
        query, key, value = heads.split([c.num_attention_heads, c.num_kv_heads, c.num_kv_heads], 2)
        query, key = self._rotary(query), self._rotary(key)
        key, value = (
            torch.cat([before.expand(batch, *before.shape), now], 1).repeat_interleave(
                c.num_attention_heads // c.num_kv_heads, 2
            )
            for before, now in zip(past, (key, value), strict=True)
        )
        seen = torch.ones(seq, key.shape[1], dtype=torch.bool).tril(key.shape[1] - seq)
        attended = torch.nn.functional.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (query, key, value)), attn_mask=seen
        )
        return attended.transpose(1, 2).flatten(2) @ w[start + "dense.weight"].T

    def _rotary(self, x: torch.Tensor) -> torch.Tensor:
        """Turn pairs of neighbours in the first half of each head as complex numbers."""
        half = self.config.kv_channels // 2
        rates = self.config.rope_base ** (-torch.arange(0, half, 2) / half)
        angles = torch.outer(torch.arange(x.shape[1]), rates)[:, None]
        pairs = torch.view_as_complex(x[..., :half].unflatten(-1, (-1, 2)).contiguous())
        turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)
        return torch.cat([turned, x[..., half:]], -1)

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight = self.weights[name + ".weight"]
        return torch.nn.functional.rms_norm(x, weight.shape, weight, self.config.layernorm_epsilon)

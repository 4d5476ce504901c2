"""A ChatGLM3 network in torch, bfloat16, random weights: what ``benchmarks/inference.py`` compares with.

It reads lines ``prefill TOKENS`` and ``decode TOKENS`` and answers each with seconds.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from torch.nn import functional

CONTEXT = 16


class Network:
    """Weights are drawn once and repeated: speed does not depend on them."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.c = config
        hidden, ffn = config["hidden_size"], config["ffn_hidden_size"]
        self.heads, self.dim = config["num_attention_heads"], config["kv_channels"]
        self.kv = config["num_kv_heads"]
        width = (self.heads + 2 * self.kv) * self.dim
        self.layers = [
            {
                "qkv": matrix(width, hidden),
                "bias": torch.zeros(width, dtype=torch.bfloat16),
                "dense": matrix(hidden, self.heads * self.dim),
                "up": matrix(2 * ffn, hidden),
                "down": matrix(hidden, ffn),
            }
            for _ in range(config["num_layers"])
        ]
        self.norm = torch.ones(hidden, dtype=torch.bfloat16)
        self.embedding = matrix(config["padded_vocab_size"], hidden)
        self.head = matrix(config["padded_vocab_size"], hidden)

    def new_cache(self, capacity: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        shape = (1, self.kv, capacity, self.dim)
        return [
            (torch.zeros(shape, dtype=torch.bfloat16), torch.zeros(shape, dtype=torch.bfloat16))
            for _ in self.layers
        ]

    def extend(self, cache: list[tuple[torch.Tensor, torch.Tensor]], start: int, ids: torch.Tensor) -> Any:
        """Append ids and return the scores behind the last."""
        count = len(ids)
        half = self.dim // 4
        angles = torch.arange(start, start + count)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        turns = torch.polar(torch.ones_like(angles), angles)
        x = functional.embedding(ids, self.embedding)
        for layer, (keys, values) in zip(self.layers, cache, strict=True):
            qkv = functional.linear(self.normed(x), layer["qkv"], layer["bias"])
            q, k, v = qkv.unflatten(-1, (-1, self.dim)).split((self.heads, self.kv, self.kv), 1)
            end = start + count
            keys[0, :, start:end] = rotated(k, turns).transpose(0, 1)
            values[0, :, start:end] = v.transpose(0, 1)
            attended = functional.scaled_dot_product_attention(
                rotated(q, turns).transpose(0, 1)[None],
                keys[:, :, :end],
                values[:, :, :end],
                is_causal=count > 1,
                enable_gqa=True,
            )
            x = x + functional.linear(attended[0].transpose(0, 1).flatten(1), layer["dense"])
            gate, up = functional.linear(self.normed(x), layer["up"]).chunk(2, -1)
            x = x + functional.linear(functional.silu(gate) * up, layer["down"])
        return functional.linear(self.normed(x[-1:]), self.head)

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.norm, 1e-5)


def matrix(out: int, inputs: int) -> torch.Tensor:
    block = torch.randn(1 << 16).mul_(inputs**-0.5).to(torch.bfloat16)
    return block.repeat(-(-out * inputs // len(block)))[: out * inputs].view(out, inputs)


def rotated(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn the first half of each head ``(tokens, heads, dim)``, in interleaved pairs."""
    half = x.shape[-1] // 2
    pairs = torch.view_as_complex(x[..., :half].float().unflatten(-1, (-1, 2)).contiguous())
    turned = torch.view_as_real(pairs * turns[:, None]).flatten(-2)
    return torch.cat((turned.to(x.dtype), x[..., half:]), -1)


@torch.inference_mode()
def main() -> None:
    config, threads = json.loads(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    network = Network(config)
    print("ready", flush=True)
    for line in sys.stdin:
        what, count = line.split()
        tokens = int(count)
        ids = torch.randint(3, config["padded_vocab_size"], (CONTEXT + tokens,))
        cache = network.new_cache(CONTEXT + tokens)
        if what == "prefill":
            started = time.perf_counter()
            network.extend(cache, 0, ids[:tokens])
        else:
            network.extend(cache, 0, ids[:CONTEXT])
            started = time.perf_counter()
            for place in range(CONTEXT, CONTEXT + tokens):
                network.extend(cache, place, ids[place : place + 1])
        print(time.perf_counter() - started, flush=True)


main()

"""The rounds of a benchmark of inference: who is measured, in turns."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

from inference_sides import Glm3, LlamaCpp, Roofline, Side, Torch, load_options


class Bench:
    """What the sections share: the arguments, the model (loaded when it is first needed) and its peers."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self._glm3: Glm3 | None = None
        self._peers: list[Side] | None = None
        self.roofline = Roofline(arguments.threads)

    @property
    def glm3(self) -> Glm3:
        if self._glm3 is None:
            a = self.arguments
            self._glm3 = Glm3(a.model, load_options(a.quant, a.threads))
        return self._glm3

    @property
    def peers(self) -> list[Side]:
        if self._peers is None:
            a = self.arguments
            self._peers = []
            for named in a.peer:
                name, _, path = named.partition("=")
                self._peers.append(LlamaCpp(a.llama_bench, f"llama.cpp {name}", Path(path), a.threads))
            if a.torch:
                c = self.glm3.model.config
                names = ("hidden_size", "ffn_hidden_size", "num_attention_heads", "kv_channels")
                names += ("num_kv_heads", "num_layers", "padded_vocab_size")
                config = {name: getattr(c, name) for name in names}
                self._peers.append(Torch(a.torch_python, config, a.threads))
        return self._peers

    def close(self) -> None:
        for peer in self._peers or ():
            peer.close()

    def compare(self, work: Callable[[Side], float]) -> tuple[dict[str, float], dict[str, float], float]:
        """Return everybody's median seconds, the ratios to glm3 and what was read at, in GB/s."""
        sides: list[Side] = [self.glm3, *self.peers]
        for side in sides:
            work(side)
        rounds: list[dict[str, float]] = []
        read = []
        for turn in range(self.arguments.rounds):
            read.append(self.roofline.read_gb_per_s())
            order = sides[turn % len(sides) :] + sides[: turn % len(sides)]
            rounds.append({side.name: work(side) for side in order})
        medians = {side.name: statistics.median(each[side.name] for each in rounds) for side in sides}
        ratios = {
            peer.name: statistics.median(each[peer.name] / each["glm3"] for each in rounds)
            for peer in self.peers
        }
        return medians, ratios, statistics.median(read)

    def alternate(self, *works: Callable[[], float]) -> list[list[float]]:
        """Return the seconds of some works of glm3, measured in turns."""
        found: list[list[float]] = [[] for _ in works]
        for work in works:
            work()
        for _ in range(self.arguments.rounds):
            for seconds_, work in zip(found, works, strict=True):
                seconds_.append(work())
        return found


def ratio(over: list[float], under: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))

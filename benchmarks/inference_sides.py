"""Who computes in a benchmark of inference: glm3 in this process, llama.cpp and torch in theirs."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from ctypes import c_int64, c_void_p
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from glm3.adapters.mindspore.kernels.compiler import kernel_library
from glm3.domain.parameters import EMBEDDING
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.ports.model import LanguageModel
from glm3.domain.quantization import PackedWeight
from glm3.domain.tensors import DType
from glm3.entrypoints.container import build_container
from glm3.entrypoints.paths import cache_folder

CHUNK = 512  # prompt tokens in a call, as when answering
CONTEXT = 16  # tokens in front of what is decoded


class Side(Protocol):
    """Seconds that some work takes; each call is one measurement."""

    name: str

    def prefill(self, tokens: int) -> float: ...
    def decode(self, tokens: int) -> float: ...
    def close(self) -> None: ...


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def drawn_ids(model: LanguageModel, count: int, seed: int = 0) -> list[int]:
    """Return ordinary ids: no special token, none beyond the vocabulary."""
    last = min(model.config.padded_vocab_size, 64_000)
    return np.random.default_rng(seed).integers(3, last, count).tolist()


def fill(model: LanguageModel, cache: Any, rows: Sequence[int], ids: Sequence[int]) -> None:
    """Prefill the same prompt into some rows."""
    for row in rows:
        for first in range(0, len(ids), CHUNK):
            model.extend(cache, [row], [ids[first : first + CHUNK]])


class Glm3:
    """The model of this process."""

    name = "glm3"

    def __init__(self, model: str, options: LoadOptions) -> None:
        container = build_container(offline=True)
        self.loaded = container.models().load(model, options)
        self.model = self.loaded.model

    def prefill(self, tokens: int) -> float:
        cache, ids = self.model.new_cache(1, tokens), drawn_ids(self.model, tokens)
        return seconds(lambda: fill(self.model, cache, [0], ids))

    def decode(self, tokens: int) -> float:
        return self.batch(1, tokens)

    def batch(self, rows: int, tokens: int) -> float:
        """Decode so many tokens in each of some rows at once."""
        cache = self.model.new_cache(rows, CONTEXT + tokens)
        ids = drawn_ids(self.model, CONTEXT + tokens)
        every = list(range(rows))
        fill(self.model, cache, every, ids[:CONTEXT])
        return seconds(lambda: [self.model.extend(cache, every, [[token]] * rows) for token in ids[CONTEXT:]])

    @property
    def stored_bytes(self) -> int:
        """Bytes of all weights as they are held; 0 where they are MindSpore's parameters."""
        return sum(_arrays(self.model).values())

    @property
    def read_bytes(self) -> int:
        """What one token reads: all but the embedding's other rows."""
        return self.stored_bytes - _arrays(self.model).get(EMBEDDING, 0)

    @property
    def bits(self) -> int | None:
        """Bits of a level in the dot products that packed weights take; None where they are plain."""
        weights: dict[str, Any] = getattr(self.model, "_weights", {})
        packed = (weight for weight in weights.values() if isinstance(weight, PackedWeight))
        return next((weight.scheme.bits for weight in packed), None)

    @property
    def products(self) -> int:
        """Multiplications with a weight for one prompt token; scores are computed for the last alone."""
        c = self.model.config
        qkv = (c.num_attention_heads + 2 * c.num_kv_heads) * c.kv_channels * c.hidden_size
        dense = c.num_attention_heads * c.kv_channels * c.hidden_size
        return c.num_layers * (qkv + dense + 3 * c.hidden_size * c.ffn_hidden_size)

    def close(self) -> None:
        """Nothing to end."""


def _arrays(model: LanguageModel) -> dict[str, int]:
    weights: dict[str, Any] = getattr(model, "_weights", {})
    return {name: getattr(weight, "array", weight).nbytes for name, weight in weights.items()}


class LlamaCpp:
    """llama.cpp's own benchmark program, one run a measurement; it warms itself up."""

    def __init__(self, program: Path, name: str, gguf: Path, threads: int) -> None:
        self.name = name
        self._command = [str(program), "-m", str(gguf), "-t", str(threads), "-r", "1", "-o", "json"]

    def prefill(self, tokens: int) -> float:
        return self._run("-p", str(tokens), "-n", "0")

    def decode(self, tokens: int) -> float:
        return self._run("-p", "0", "-n", str(tokens))

    def _run(self, *work: str) -> float:
        done = subprocess.run([*self._command, *work], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"llama-bench: {done.stderr.strip()[-500:]}")
        return float(json.loads(done.stdout)[0]["avg_ns"]) / 1e9

    def close(self) -> None:
        """Nothing runs between two measurements."""


class Torch:
    """torch in bfloat16, in a process that is stopped while others are measured."""

    name = "torch bf16"

    def __init__(self, python: str, config: dict[str, Any], threads: int) -> None:
        program = Path(__file__).with_name("inference_torch.py")
        self._process = subprocess.Popen(
            [python, str(program), json.dumps(config), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "KMP_BLOCKTIME": "0"},
        )
        self._answer()
        self._process.send_signal(signal.SIGSTOP)

    def prefill(self, tokens: int) -> float:
        return self._ask(f"prefill {tokens}")

    def decode(self, tokens: int) -> float:
        return self._ask(f"decode {tokens}")

    def _ask(self, line: str) -> float:
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = float(self._answer())
        self._process.send_signal(signal.SIGSTOP)
        return answer

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the torch process has ended")
        return line

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Roofline:
    """What the threads can read and multiply, in the same minute as what is measured."""

    def __init__(self, threads: int) -> None:
        build = kernel_library(cache_folder() / "kernels", unit="roofline.cpp")
        if build is None:
            sys.exit("no C++ compiler")
        self._library = ctypes.CDLL(str(build.path))
        self._library.glm3_set_threads(threads)
        self._library.glm3_multiply.restype = c_int64
        self._block = np.ones(1 << 27, np.float32)

    def read_gb_per_s(self) -> float:
        pointer, size = c_void_p(self._block.ctypes.data), c_int64(self._block.size)
        best = min(seconds(lambda: self._library.glm3_read(pointer, size)) for _ in range(2))
        return self._block.nbytes / best / 1e9

    def gop_per_s(self, bits: int, tokens: int) -> float:
        """Return what the threads can multiply the way products of so many tokens do."""
        started = time.perf_counter()
        operations = self._library.glm3_multiply(c_int64(300_000), bits, c_int64(tokens))
        return operations / (time.perf_counter() - started) / 1e9


def load_options(quant: str | None, threads: int) -> LoadOptions:
    return LoadOptions(dtype=DType.FLOAT32, threads=threads, quant=quant)

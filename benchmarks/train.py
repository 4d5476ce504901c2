"""Measure a training step against torch: the same network, weights, data and optimizer, on this machine.

    python benchmarks/train.py                          # both shapes, about 4 minutes
    python benchmarks/train.py --shape tiny --steps 30
    python benchmarks/train.py --kernels stock --torch-python /elsewhere/bin/python

Each framework has a process of its own. They take turns step by step, and who is not on turn is stopped
(SIGSTOP), so that its idle threads take no core; who begins a pair of turns changes. Losses must agree at
every step: speeds of different computations say nothing. A step is forward, backward, clipping by the global
norm and AdamW (torch: eager, scaled_dot_product_attention), float32, on all cores.

What to expect of torch's time over glm3's depends on whose matrix products are the faster on the processor:
they are 80% of a step. docs/performance.md has the figures of two. A machine that does other work beside
shows ratios of 1.5 to 7, because torch's threads wait for each other; the ratio of the fastest steps is
printed too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes

LEARNING_RATE = 1e-4
BETAS, EPSILON, DECAY, CLIP = (0.9, 0.95), 1e-8, 0.1, 1.0


@frozen
class Shape:
    """A network and a batch ``(batch, seq)``."""

    config: ModelConfig
    batch: int
    seq: int

    @property
    def tokens(self) -> int:
        return self.batch * self.seq


def config(**fields: int) -> ModelConfig:
    fixed = {"multi_query_group_num": 2, "seq_length": 512}
    return ModelConfig.from_mapping(fixed | fields)


SHAPES = {
    "tiny": Shape(  # the embedded model
        config(
            num_layers=5,
            padded_vocab_size=2560,
            hidden_size=192,
            ffn_hidden_size=512,
            kv_channels=32,
            num_attention_heads=6,
        ),
        batch=8,
        seq=192,
    ),
    "100m": Shape(
        config(
            num_layers=8,
            padded_vocab_size=4096,
            hidden_size=1024,
            ffn_hidden_size=3424,
            kv_channels=64,
            num_attention_heads=16,
        ),
        batch=2,
        seq=192,
    ),
}


def weights(shape: Shape) -> dict[str, NDArray[np.float32]]:
    """Draw the weights that both frameworks begin with."""
    generator = np.random.default_rng(0)
    drawn = {}
    for name, size in parameter_shapes(shape.config).items():
        array = 0.02 * generator.standard_normal(size, np.float32)
        drawn[name] = array + 1 if name.endswith("norm.weight") else array
    return drawn


def batches(shape: Shape) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Yield input ids and targets without end."""
    generator = np.random.default_rng(1)
    while True:
        ids = generator.integers(0, shape.config.padded_vocab_size, (shape.batch, shape.seq + 1), np.int32)
        yield np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


Step = Callable[[NDArray[np.int32], NDArray[np.int32]], float]


def glm3_step(shape: Shape, kernels: str) -> Step:
    from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
    from glm3.adapters.mindspore.runtime import prepare
    from glm3.domain.ports.training import MicroBatch
    from glm3.domain.training.options import TrainOptions
    from glm3.entrypoints.paths import cache_folder

    prepare()
    from glm3.adapters.mindspore.kernels.base import HeadLayout
    from glm3.adapters.mindspore.kernels.compiler import kernel_library
    from glm3.adapters.mindspore.kernels.cpu import CpuKernels
    from glm3.adapters.mindspore.kernels.stock import StockKernels
    from glm3.adapters.mindspore.model import MindSporeModel
    from glm3.adapters.mindspore.network import ChatGLMNetwork

    layout = HeadLayout.of(shape.config)
    if kernels == "stock":
        chosen = StockKernels(layout)
    else:
        build = kernel_library(cache_folder() / "kernels")
        if build is None:
            sys.exit("no C++ compiler: run with --kernels stock")
        chosen = CpuKernels(layout, build.path)
    model = MindSporeModel(ChatGLMNetwork(shape.config, chosen))
    options = TrainOptions(
        beta1=BETAS[0], beta2=BETAS[1], eps=EPSILON, weight_decay=DECAY, max_grad_norm=CLIP
    )
    trainer = model.trainer(options, SingleProcessCommunicator())
    trainer.restore(weights(shape), dict(trainer.state()))

    def step(ids: NDArray[np.int32], targets: NDArray[np.int32]) -> float:
        return trainer.step([MicroBatch(ids, targets)], LEARNING_RATE).loss

    return step


def torch_step(shape: Shape, *, fused: bool) -> Step:
    import torch
    from torch.nn import functional

    c = shape.config
    heads, kv_heads, dim = c.num_attention_heads, c.num_kv_heads, c.kv_channels
    p = {name: torch.from_numpy(array).requires_grad_() for name, array in weights(shape).items()}
    exponents = np.arange(0, c.rotary_dim, 2) / c.rotary_dim
    angles = np.outer(np.arange(shape.seq), c.rope_base**-exponents)
    cos, sin = (
        torch.tensor(table, dtype=torch.float32)[:, None] for table in (np.cos(angles), np.sin(angles))
    )

    def rotate(x: Any) -> Any:  # (batch, seq, heads, dim), the first half of dim in interleaved pairs
        even, odd, rest = x[..., : c.rotary_dim : 2], x[..., 1 : c.rotary_dim : 2], x[..., c.rotary_dim :]
        turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
        return torch.cat((turned, rest), -1)

    def block(x: Any, prefix: str) -> Any:
        def linear(x: Any, name: str) -> Any:
            return functional.linear(x, p[f"{prefix}{name}.weight"], p.get(f"{prefix}{name}.bias"))

        def norm(x: Any, name: str) -> Any:
            return functional.rms_norm(x, (c.hidden_size,), p[f"{prefix}{name}.weight"], c.layernorm_epsilon)

        qkv = linear(norm(x, "input_layernorm"), "self_attention.query_key_value")
        qkv = qkv.unflatten(-1, (heads + 2 * kv_heads, dim))
        q, k, v = qkv.split((heads, kv_heads, kv_heads), 2)
        attended = functional.scaled_dot_product_attention(
            rotate(q).transpose(1, 2),
            rotate(k).transpose(1, 2),
            v.transpose(1, 2),
            is_causal=True,
            enable_gqa=True,
        )
        x = x + linear(attended.transpose(1, 2).flatten(2), "self_attention.dense")
        gate, up = linear(norm(x, "post_attention_layernorm"), "mlp.dense_h_to_4h").chunk(2, -1)
        return x + linear(functional.silu(gate) * up, "mlp.dense_4h_to_h")

    decayed = [array for array in p.values() if array.ndim > 1]
    plain = [array for array in p.values() if array.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        betas=BETAS,
        eps=EPSILON,
        fused=fused,
    )

    def step(ids: NDArray[np.int32], targets: NDArray[np.int32]) -> float:
        x = functional.embedding(
            torch.from_numpy(ids).long(), p["transformer.embedding.word_embeddings.weight"]
        )
        for layer in range(c.num_layers):
            x = block(x, f"transformer.encoder.layers.{layer}.")
        x = functional.rms_norm(
            x, (c.hidden_size,), p["transformer.encoder.final_layernorm.weight"], c.layernorm_epsilon
        )
        logits = functional.linear(x, p["transformer.output_layer.weight"]).flatten(0, 1)
        loss = functional.cross_entropy(logits, torch.from_numpy(targets).long().flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(p.values()), CLIP)
        optimizer.step()
        return loss.item()

    return step


def work(framework: str, shape: Shape, kernels: str, adamw: str) -> None:
    """Make one step for each line on the standard input; answer with its seconds and loss."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get among the answers
    step = glm3_step(shape, kernels) if framework == "glm3" else torch_step(shape, fused=adamw == "fused")
    for (ids, targets), _ in zip(batches(shape), sys.stdin, strict=False):
        started = time.perf_counter()
        loss = step(ids, targets)
        print(json.dumps([time.perf_counter() - started, loss]), file=answers, flush=True)


class Worker:
    """A framework in a process of its own, stopped unless it is on turn."""

    def __init__(self, python: str, framework: str, shape: str, arguments: argparse.Namespace) -> None:
        command = [python, __file__, "--work", framework, "--shape", shape]
        command += ["--kernels", arguments.kernels, "--torch-adamw", arguments.torch_adamw]
        path = str(Path(__file__).parents[1] / "typings")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def step(self) -> tuple[float, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the worker ended with exit code {self.process.wait()}")
        self.process.send_signal(signal.SIGSTOP)
        seconds, loss = json.loads(line)
        return seconds, loss

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def compare(name: str, arguments: argparse.Namespace) -> None:
    """Time both frameworks on one shape and print a row."""
    workers = {
        "glm3": Worker(sys.executable, "glm3", name, arguments),
        "torch": Worker(arguments.torch_python, "torch", name, arguments),
    }
    seconds: dict[str, list[float]] = {framework: [] for framework in workers}
    try:
        for turn in range(arguments.warmup + arguments.steps):
            losses = {}
            for framework in sorted(workers, reverse=turn % 2 == 1):
                elapsed, losses[framework] = workers[framework].step()
                if turn >= arguments.warmup:
                    seconds[framework].append(elapsed)
            if not np.isclose(losses["glm3"], losses["torch"], rtol=1e-4):
                sys.exit(f"the losses differ at step {turn}: {losses}")
    finally:
        for worker in workers.values():
            worker.end()
    tokens = SHAPES[name].tokens
    median = {framework: statistics.median(values) for framework, values in seconds.items()}
    best = {framework: min(values) for framework, values in seconds.items()}
    print(
        f"{name:6} {tokens / median['glm3']:12.0f} {tokens / median['torch']:12.0f}"
        f" {1000 * median['glm3']:10.1f} {1000 * median['torch']:10.1f}"
        f" {median['torch'] / median['glm3']:8.2f} {best['torch'] / best['glm3']:8.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: all")
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each framework")
    parser.add_argument("--warmup", type=int, default=3, help="steps before, the first of which compiles")
    parser.add_argument("--kernels", choices=("cpu", "stock"), default="cpu")
    parser.add_argument(
        "--torch-adamw", choices=("fused", "usual"), default="fused", help="torch's own default is usual"
    )
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter that has torch")
    parser.add_argument("--work", choices=("glm3", "torch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    shapes = arguments.shape or list(SHAPES)
    if arguments.work:
        work(arguments.work, SHAPES[shapes[0]], arguments.kernels, arguments.torch_adamw)
        return
    print("shape  tok/s glm3   tok/s torch    ms glm3   ms torch    ratio  of best", flush=True)
    for name in shapes:
        compare(name, arguments)


if __name__ == "__main__":
    main()

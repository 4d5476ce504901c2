"""Measure what each rank of a job keeps and how long a step takes, over 1, 2 and 4 ranks of this machine.

    python benchmarks/scale_out.py                  # 43 million parameters, about 3 minutes, 6 GB
    python benchmarks/scale_out.py --ranks 1 2 --steps 10 --hidden 256

The global batch is the same for every number of ranks, and so are the losses, which is checked. The moments
are what a rank holds of them; the peak is that of its process, of which about 0.5 GB is the runtime. Ranks
share this machine's cores: the time says what communication costs, not how a job scales over machines.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from glm3.adapters.host.memory import peak_memory
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.ports.training import MicroBatch, SupportsTraining
from glm3.domain.training.memory_plan import parameter_count
from glm3.domain.training.options import TrainOptions
from glm3.entrypoints.container import build_container

ROWS, SEQ, WARM_STEPS = 4, 128, 2


def network(hidden: int) -> ModelConfig:
    return ModelConfig.from_mapping(
        {
            "num_layers": 8,
            "padded_vocab_size": 4096,
            "hidden_size": hidden,
            "ffn_hidden_size": hidden * 8 // 3,
            "kv_channels": 64,
            "num_attention_heads": hidden // 64,
            "multi_query_group_num": 2,
            "seq_length": SEQ,
        }
    )


def run_rank(folder: Path, shared: bool, steps: int, hidden: int) -> None:
    """Train on this rank and write what was measured into ``folder``."""
    container = build_container()
    communicator = container.communicator()
    rank, world_size = communicator.rank, communicator.world_size
    model = container.backend().load(network(hidden), None, LoadOptions())
    if not isinstance(model, SupportsTraining):
        raise SystemExit("this backend cannot train")
    cut = NetworkCut(data_parallel=world_size, optimizer_parallel=shared) if world_size > 1 else None
    trainer = model.trainer(TrainOptions(cut=cut), communicator)
    losses, seconds = [], []
    for step in range(WARM_STEPS + steps):
        ids = np.random.default_rng(step).integers(0, 4096, (ROWS, SEQ + 1)).astype(np.int32)
        own = ids[rank::world_size]
        communicator.barrier()
        begun = time.perf_counter()
        losses.append(trainer.step([MicroBatch(own[:, :-1], own[:, 1:])], 1e-4).loss)
        seconds.append(time.perf_counter() - begun)
    peak = peak_memory()  # before the moments are copied to be counted
    moments = sum(array.nbytes for name, array in trainer.state().items() if name.startswith("adam_"))
    measured = {"losses": losses, "seconds": seconds[WARM_STEPS:], "moments": moments, "peak": peak}
    (folder / f"{rank}.json").write_text(json.dumps(measured))
    communicator.barrier()


def measure(ranks: int, shared: bool, steps: int, hidden: int) -> list[dict[str, Any]]:
    """Run a job and return what each rank measured."""
    with tempfile.TemporaryDirectory(prefix="glm3-scale-out-") as name:
        script = [
            str(Path(__file__).resolve()),
            "--folder",
            name,
            "--steps",
            str(steps),
            "--hidden",
            str(hidden),
        ]
        script += ["--shared"] if shared else []
        launcher = ["-m", "glm3", "launch", "--workers", str(ranks), "--log-dir", f"{name}/log"]
        command = [sys.executable, *(launcher if ranks > 1 else []), *script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return [json.loads((Path(name) / f"{rank}.json").read_text()) for rank in range(ranks)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    arguments.add_argument("--steps", type=int, default=8)
    arguments.add_argument("--hidden", type=int, default=640)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments.add_argument("--shared", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.folder is not None:
        run_rank(given.folder, given.shared, given.steps, given.hidden)
        return
    count = parameter_count(network(given.hidden))
    print(f"{count / 1e6:.1f} million parameters, {ROWS} rows of {SEQ} a step, float32")
    print(f"{'ranks':>5} {'optimizer':>10} {'moments/rank':>13} {'peak/rank':>10} {'step':>9}")
    expected: list[float] | None = None
    for ranks in given.ranks:
        for shared in (False, True) if ranks > 1 else (False,):
            found = measure(ranks, shared, given.steps, given.hidden)
            expected = expected or found[0]["losses"]
            for rank in found:
                np.testing.assert_allclose(rank["losses"], expected, rtol=1e-5)
            step = statistics.median(found[0]["seconds"])
            moments, peak = (max(rank[key] for rank in found) for key in ("moments", "peak"))
            kind = "shared" if shared else "whole"
            memory = f"{moments / 1e6:>10.1f} MB {peak / 1e9:>7.2f} GB"
            print(f"{ranks:>5} {kind:>10} {memory} {step * 1e3:>6.0f} ms", flush=True)


if __name__ == "__main__":
    main()

"""Measure merging the slices of 8 ranks: against cp of the same files, and against MindSpore's own function.

    python random_checkpoint.py /tmp/random6b           # any folder in Hugging Face's layout will do
    python benchmarks/merge.py --checkpoint /tmp/random6b --work /tmp/merge --rounds 2
    python benchmarks/merge.py --mindspore --work /tmp/merge            # 1 GB, 8 ranks, both ways

The checkpoint is cut into ranks first. Then cp and the merge take turns, each with its sources out of the
page cache and until the last byte is on the disk. cp copies the files of the ranks, which is what the merge
reads, and the merged file, which is what it writes: less, since every rank holds what is not cut, and the
merge compares these copies. Peaks are those of a process that does nothing else. WORK needs three times the
size of the checkpoint and is emptied again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from glm3.adapters.msckpt import MindSporeCheckpointStore
from glm3.adapters.safetensors import SafetensorsStore
from glm3.adapters.strategy.store import FileStrategyStore
from glm3.application.merge_checkpoints import MergeRequest, merge_checkpoints
from glm3.domain.checksums import tensor_crc32
from glm3.domain.layout.network_cut import NetworkCut, cut_network
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes, to_mindspore_name
from glm3.domain.tensors import DType, TensorSpec

PEAK = """
def peak_memory():  # getrusage would count what the parent held, too
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
"""
OURS = """
import sys
from glm3 import merge_checkpoints
source, strategy, target = sys.argv[1:]
result = merge_checkpoints(source, target, src_strategy=strategy)
print(result.seconds, peak_memory())
"""
MINDSPORES = """
import sys, time
import mindspore
source, strategy, target = sys.argv[1:]
begun = time.perf_counter()
mindspore.transform_checkpoints(source, target, "checkpoint_", strategy, None)
print(time.perf_counter() - begun, peak_memory())
"""


def cut(full: Path, work: Path, ranks: list[int]) -> tuple[Path, Path]:
    """Cut a complete checkpoint for ranks; return the folder of these, and their strategy."""
    with SafetensorsStore().open(full) as reader:
        shapes = {name: spec.shape for name, spec in reader.tensors.items()}
    data, model, stages = ranks
    how = NetworkCut(data_parallel=data, model_parallel=model, pipeline_stage=stages, optimizer_parallel=True)
    job = cut_network(shapes, how, itemsize=2)
    strategy = work / "strategy.ckpt"
    FileStrategyStore().write_merged(strategy, job)
    begun = time.perf_counter()
    result = merge_checkpoints(
        MergeRequest(source=full, target=work / "ranks", target_strategy=job),
        [SafetensorsStore(), MindSporeCheckpointStore()],
    )
    seconds = time.perf_counter() - begun
    print(f"cut for {len(result.files)} ranks: {result.nbytes / 1e9:.2f} GB in {seconds:.1f} s", flush=True)
    return work / "ranks", strategy


def checksums(path: Path, store: SafetensorsStore | MindSporeCheckpointStore) -> dict[str, int]:
    with store.open(path) as reader:
        return {to_mindspore_name(name): tensor_crc32(reader, name) for name in reader.tensors}


def evict(folder: Path) -> int:
    """Put the files of a folder out of the page cache and return their bytes."""
    os.sync()
    total = 0
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
            total += path.stat().st_size
    return total


def copy(source: Path, target: Path) -> float:
    """Return the seconds that cp and sync take."""
    begun = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    subprocess.run(["sync", "-f", str(target)], check=True)
    return time.perf_counter() - begun


def in_a_process(program: str, *arguments: Path) -> tuple[float, int]:
    """Return the seconds of the merge and the peak of the process that did it."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK + program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), int(peak)


def against_cp(checkpoint: Path, work: Path, ranks: list[int], rounds: int) -> None:
    expected = checksums(checkpoint, SafetensorsStore())
    source, strategy = cut(checkpoint, work, ranks)
    merged = work / "merged"
    same_input, same_output, peaks = [], [], []
    for _ in range(rounds):
        nbytes = evict(source)
        seconds = copy(source, work / "copy")
        shutil.rmtree(work / "copy")
        evict(source)
        took, peak = in_a_process(OURS, source, strategy, merged)
        written = evict(merged)
        again = copy(merged, work / "copy")
        shutil.rmtree(work / "copy")
        same_input.append(seconds / took)
        same_output.append(again / took)
        peaks.append(peak)
        print(
            f"cp ranks {nbytes / 1e9:.2f} GB {seconds:.1f} s; merge {took:.1f} s, peak {peak / 1e6:.0f} MB; "
            f"cp merged {written / 1e9:.2f} GB {again:.1f} s",
            flush=True,
        )
        if checksums(merged / "rank_0" / "checkpoint_0.ckpt", MindSporeCheckpointStore()) != expected:
            raise SystemExit("the merged checkpoint is not the one that was cut")
        shutil.rmtree(merged)
    print(
        f"speed by that of cp: {statistics.median(same_input):.2f} of the ranks' files, "
        f"{statistics.median(same_output):.2f} of the merged file; peak {max(peaks) / 1e6:.0f} MB"
    )


def random_network(folder: Path) -> Path:
    """Write about 1 GB of random float32 weights."""
    config = ModelConfig(
        num_layers=8,
        hidden_size=1536,
        ffn_hidden_size=4096,
        padded_vocab_size=16384,
        kv_channels=128,
        num_attention_heads=12,
    )
    rng = np.random.default_rng(0)
    specs = [TensorSpec(name, DType.FLOAT32, shape) for name, shape in parameter_shapes(config).items()]
    path = folder / "full.safetensors"
    with SafetensorsStore().create(path, specs) as writer:
        for spec in specs:
            writer.write(spec.name, rng.standard_normal(spec.shape, np.float32))
    return path


def against_mindspore(work: Path, ranks: list[int], rounds: int) -> None:
    full = random_network(work)
    expected = checksums(full, SafetensorsStore())
    source, strategy = cut(full, work, ranks)
    ways: dict[str, Callable[[], tuple[float, int]]] = {
        "ours": lambda: in_a_process(OURS, source, strategy, work / "merged"),
        "mindspore": lambda: in_a_process(MINDSPORES, source, strategy, work / "merged"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, merge in ways.items():
            took, peak = merge()
            seconds[name].append(took)
            print(f"{name}: {took:.2f} s, peak {peak / 1e6:.0f} MB", flush=True)
            (merged,) = (work / "merged" / "rank_0").glob("*.ckpt")
            if checksums(merged, MindSporeCheckpointStore()) != expected:
                print(f"{name}: the merged checkpoint is not the one that was cut", flush=True)
            shutil.rmtree(work / "merged")
    ours, theirs = (statistics.median(seconds[name]) for name in ways)
    print(f"mindspore / ours: {theirs / ours:.1f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--checkpoint", type=Path, help="a complete checkpoint in Hugging Face's layout")
    arguments.add_argument("--mindspore", action="store_true", help="measure against MindSpore instead")
    arguments.add_argument("--work", type=Path, required=True, help="an empty or new folder")
    arguments.add_argument("--cut", type=int, nargs=3, default=[8, 1, 1], metavar=("DP", "MP", "PP"))
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    if not given.mindspore and given.checkpoint is None:
        arguments.error("name a --checkpoint, or --mindspore")
    given.work.mkdir(parents=True, exist_ok=True)
    if any(given.work.iterdir()):
        arguments.error(f"{given.work} is not empty")
    try:
        if given.mindspore:
            against_mindspore(given.work, given.cut, given.rounds)
        else:
            against_cp(given.checkpoint, given.work, given.cut, given.rounds)
    finally:
        shutil.rmtree(given.work, ignore_errors=True)


if __name__ == "__main__":
    main()

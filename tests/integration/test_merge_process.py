"""Merges in processes of their own: killed at any moment, measured, and cut short by a full disk."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.msckpt import MindSporeCheckpointStore
from glm3.adapters.strategy.store import FileStrategyStore
from glm3.domain.errors import StorageError
from glm3.domain.layout.strategy import JobStrategy, Strategy
from glm3.domain.layout.tensor_layout import TensorLayout
from glm3.domain.resumable_folder import resumable_folder
from glm3.domain.tensors import DType, TensorSpec
from support.rank_checkpoints import save_ranks, slice_of
from support.tensors import bits, load, numbers

pytestmark = pytest.mark.slow

PROGRAM = """
import resource, sys
from glm3 import merge_checkpoints
source, target, src_strategy, dst_strategy, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

print("ready", flush=True)
before = peak()
merge_checkpoints(source, target, src_strategy=src_strategy, dst_strategy=dst_strategy)
print("done", before, peak(), flush=True)
"""


def start(source: Path, target: Path, src: Path, dst: Path | str, limit: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(source), str(target), str(src), str(dst), str(limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def job(names: list[str], ranks: int, axis: int = 0) -> JobStrategy:
    tensor_map = tuple(0 if at == axis else -1 for at in range(2))
    return JobStrategy((Strategy({name: TensorLayout((ranks,), tensor_map) for name in names}, ranks),))


def test_a_kill_at_any_moment_leaves_the_target_absent_or_whole_and_work_is_kept(tmp_path):
    tensors = {
        (spec := TensorSpec(f"w{n}", DType.FLOAT16, (1 << 10, 1 << 11))): numbers(spec) for n in range(4)
    }
    two, four = (job([spec.name for spec in tensors], ranks) for ranks in (2, 4))
    source, target = save_ranks(tmp_path / "src", tensors, two, "m.ckpt"), tmp_path / "out" / "dst"
    for name, strategy in (("2", two), ("4", four)):
        FileStrategyStore().write_merged(tmp_path / name, strategy)
    moments, killed = random.Random(7), 0
    for _ in range(8):
        process = start(source, target, tmp_path / "2", tmp_path / "4")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if target.exists():
            break
        killed += 1
    assert killed > 0
    if not target.exists():
        process = start(source, target, tmp_path / "2", tmp_path / "4")
        assert process.communicate()[0].splitlines()[-1].startswith("done")
    for rank in range(4):
        got = load(MindSporeCheckpointStore(), target / f"rank_{rank}" / f"checkpoint_{rank}.ckpt")
        assert got == bits(slice_of(tensors, four, rank))
    assert [path.name for path in target.parent.iterdir()] == ["dst"]
    assert not list(target.rglob(".*"))


@pytest.mark.parametrize("axis", [0, 1])
def test_memory_stays_at_a_few_slabs_whatever_the_size(tmp_path, axis):
    """A tensor of 256 MB out of two ranks adds less than 150 MB to the process."""
    spec = TensorSpec("w", DType.FLOAT16, (1 << 10, 1 << 17))
    two = job(["w"], 2, axis)
    shape = two.slice_shape("w", spec.shape, 0)
    assert shape is not None
    half = TensorSpec("w", DType.FLOAT16, shape)
    for rank in range(2):
        values = np.random.default_rng(rank).integers(0, 1 << 14, shape[1], np.uint16)
        with MindSporeCheckpointStore().create(tmp_path / f"src/rank_{rank}/m.ckpt", [half]) as writer:
            for row in range(shape[0]):
                writer.write("w", (values + row).view(np.float16)[None], slice(row, row + 1))
    FileStrategyStore().write_merged(tmp_path / "2", two)
    process = start(tmp_path / "src", tmp_path / "dst", tmp_path / "2", "None")
    output, errors = process.communicate()
    word, before, after = output.splitlines()[-1].split()
    assert word == "done", errors
    assert (int(after) - int(before)) / 1024 < 150
    with MindSporeCheckpointStore().open(tmp_path / "dst/rank_0/checkpoint_0.ckpt") as reader:
        for row in (0, shape[0] - 1, spec.shape[0] - 1):
            got = reader.read("w", slice(row, row + 1)).view(np.uint16)[0]
            parts = [
                np.random.default_rng(rank).integers(0, 1 << 14, shape[1], np.uint16) for rank in range(2)
            ]
            expected = (
                np.concatenate([part + row for part in parts])
                if axis
                else parts[row // shape[0]] + row % shape[0]
            )
            assert (got == expected).all()


def test_a_file_that_may_not_grow_leaves_no_target(tmp_path):
    tensors = {(spec := TensorSpec("w", DType.FLOAT16, (64, 1 << 10))): numbers(spec)}
    two = job(["w"], 2)
    source = save_ranks(tmp_path / "src", tensors, two, "m.ckpt")
    FileStrategyStore().write_merged(tmp_path / "2", two)
    process = start(source, tmp_path / "dst", tmp_path / "2", "None", limit=100_000)
    _, errors = process.communicate()
    assert "StorageError" in errors
    assert "rank 0: cannot be written: File too large; not finished: rank 0" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "src"]


def test_two_merges_into_one_place_do_not_mix(tmp_path):
    with (
        resumable_folder(tmp_path / "dst", "one"),
        pytest.raises(StorageError, match="another process is writing this"),
        resumable_folder(tmp_path / "dst", "two"),
    ):
        pass

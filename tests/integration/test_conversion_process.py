"""Conversions in processes of their own: killed at any moment, and measured."""

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
from glm3.adapters.safetensors import SafetensorsStore
from glm3.domain.tensors import DType, TensorSpec
from support.tensors import load, numbers, save

PROGRAM = """
import resource, sys
from pathlib import Path
from glm3.adapters.msckpt import MindSporeCheckpointStore
from glm3.adapters.safetensors import SafetensorsStore
from glm3.application.convert import ConversionRequest, convert
from glm3.domain.tensors import DType
source, target, to, dtype = sys.argv[1:]
stores = [SafetensorsStore(max_shard_bytes=4_000_000), MindSporeCheckpointStore()]
request = ConversionRequest(
    source=Path(source), target=Path(target), format=to, overwrite=True, dtype=DType(dtype) if dtype else None
)
print("ready", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
convert(request, stores)
print("done", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
"""


def start(source: Path, target: Path, to: str, dtype: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(source), str(target), to, dtype],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("to", "name"), [("ckpt", "m.ckpt"), ("hf", "folder")])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_kill_at_any_moment_leaves_the_target_absent_or_whole(tmp_path, to, name, replacing):
    store = {"ckpt": MindSporeCheckpointStore(), "hf": SafetensorsStore()}[to]
    specs = [TensorSpec(f"w{number}", DType.FLOAT16, (1 << 19,)) for number in range(16)]
    new = {spec: numbers(spec) for spec in specs}
    old = {spec: numbers(spec, seed=1) for spec in specs}
    source, target = tmp_path / "source.safetensors", tmp_path / "out" / name
    save(SafetensorsStore(), source, new)
    if replacing:
        save(store, target, old)
    whole = [load(SafetensorsStore(), source)] + ([load(store, target)] if replacing else [])
    moments = random.Random(f"{to}{replacing}")
    killed = 0
    for latest in (0, 0.01, 0.02, 0.05, 0.1, 0.15):  # the first is too soon for any machine to be done
        process = start(source, target, to)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        time.sleep(moments.uniform(0, latest))
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        killed += process.wait() == -signal.SIGKILL
        if replacing or target.exists():
            assert load(store, target) in whole
    assert killed > 0
    process = start(source, target, to)
    assert process.communicate()[0].splitlines()[-1].startswith("done")
    assert load(store, target) == whole[0]
    assert [entry.name for entry in target.parent.iterdir()] == [name]


@pytest.mark.parametrize("dtype", ["", "float32"])
def test_memory_stays_at_a_few_slabs_whatever_the_size(tmp_path, dtype):
    """One tensor of 192 MB, and as float32 twice that, adds less than 150 MB to the process."""
    spec = TensorSpec("w", DType.FLOAT16, (96, 1 << 20))
    with SafetensorsStore().create(tmp_path / "m.safetensors", [spec]) as writer:
        for row in range(96):
            writer.write("w", np.full((1, 1 << 20), row, np.float16), slice(row, row + 1))
    process = start(tmp_path / "m.safetensors", tmp_path / "m.ckpt", "ckpt", dtype)
    (_, before), (_, after) = (line.split() for line in process.communicate()[0].splitlines())
    assert (int(after) - int(before)) / 1024 < 150

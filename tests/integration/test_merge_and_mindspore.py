"""MindSpore merges what this project cut and loads what it merged, and the other way round."""

from __future__ import annotations

import mindspore as ms
import pytest

from glm3.adapters.strategy.store import FileStrategyStore
from glm3.application.merge_checkpoints import MergeRequest, merge_checkpoints
from glm3.domain.layout.strategy import COMPLETE
from glm3.domain.tensors import DType
from support.rank_checkpoints import STORES, network, save_ranks, store_for, strategy
from support.tensors import bits, load


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT16])
@pytest.mark.parametrize("job", [strategy(2, 2, 2), strategy(4)], ids=["dp2-mp2-pp2", "dp4"])
def test_each_merges_what_the_other_cut(tmp_path, dtype, job):
    tensors = network(dtype, state=False)
    source = save_ranks(tmp_path / "full", tensors, COMPLETE, "full.ckpt")
    file = tmp_path / "strategy.ckpt"
    FileStrategyStore().write_merged(file, job)
    merge_checkpoints(MergeRequest(source=source, target=tmp_path / "ours", target_strategy=job), STORES)
    ms.transform_checkpoints(str(source), str(tmp_path / "theirs"), "t_", None, str(file))
    for rank in range(job.num_ranks):
        ours, theirs = (
            tmp_path / f"ours/rank_{rank}/checkpoint_{rank}.ckpt",
            tmp_path / f"theirs/rank_{rank}/t_{rank}.ckpt",
        )
        assert load(store_for(ours), ours) == load(store_for(theirs), theirs)
    merged = merge_checkpoints(
        MergeRequest(source=tmp_path / "theirs", target=tmp_path / "merged", source_strategy=job), STORES
    )
    assert load(store_for(merged.files[0]), merged.files[0]) == bits(tensors)
    ms.transform_checkpoints(str(tmp_path / "ours"), str(tmp_path / "again"), "t_", str(file), None)
    again = tmp_path / "again/rank_0/t_0.ckpt"
    assert load(store_for(again), again) == bits(tensors)
    loaded = ms.load_checkpoint(str(merged.files[0]))
    assert {name: value.asnumpy().tobytes() for name, value in loaded.items()} == {
        spec.name: array.tobytes() for spec, array in tensors.items()
    }

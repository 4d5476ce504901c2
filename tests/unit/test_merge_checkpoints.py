"""Merging and re-slicing the checkpoints of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm3.application.merge_checkpoints import MergeRequest, merge_checkpoints
from glm3.domain.layout.strategy import COMPLETE
from support.rank_checkpoints import STORES, network, save_ranks, slice_of, store_for, strategy
from support.tensors import bits, load


def held(path: Path):
    return load(store_for(path), path)


@pytest.mark.parametrize(
    "job", [strategy(2), strategy(1, 2), strategy(2, 2, 2), strategy(4, optimizer=False)]
)
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_slices_merge_to_the_very_tensors_they_were_cut_from(tmp_path, job, suffix):
    tensors = network()
    source = save_ranks(tmp_path / "src", tensors, job, f"glm3_rank_{{rank}}-3_1.{suffix}")
    result = merge_checkpoints(
        MergeRequest(
            source=source, target=tmp_path / "dst", source_strategy=job, prefix="glm3_6b", format=suffix
        ),
        STORES,
    )
    assert result.files == (tmp_path / "dst" / "rank_0" / f"glm3_6b0.{suffix}",)
    assert held(result.files[0]) == bits(tensors)
    assert (result.source_ranks, result.position, result.tensors) == (job.num_ranks, (3, 1), len(tensors))


def test_a_complete_checkpoint_is_cut_for_ranks_and_these_for_others(tmp_path):
    tensors, first, second = network(), strategy(2, 2, 2), strategy(4, 1)
    source = save_ranks(tmp_path / "full", tensors, COMPLETE, "full.ckpt")
    cut = merge_checkpoints(
        MergeRequest(source=source, target=tmp_path / "cut", target_strategy=first), STORES
    )
    for rank, file in enumerate(cut.files):
        assert file == tmp_path / "cut" / f"rank_{rank}" / f"checkpoint_{rank}.ckpt"
        assert held(file) == bits(slice_of(tensors, first, rank))
    again = merge_checkpoints(
        MergeRequest(
            source=tmp_path / "cut", target=tmp_path / "again", source_strategy=first, target_strategy=second
        ),
        STORES,
    )
    for rank, file in enumerate(again.files):
        assert held(file) == bits(slice_of(tensors, second, rank))

"""Merging and re-slicing the checkpoints of ranks."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.application.merge_checkpoints import MergeRequest, merge_checkpoints
from glm3.application.slice_targets import Selection
from glm3.domain.layout.strategy import COMPLETE, JobStrategy, Strategy
from glm3.domain.layout.tensor_layout import TensorLayout
from glm3.domain.tensors import DType, TensorSpec
from support.rank_checkpoints import STORES, network, save_ranks, slice_of, store_for, strategy
from support.tensors import bits, load, numbers


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


JOBS = st.builds(
    strategy,
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2, 3]),
    optimizer=st.booleans(),
)


@settings(max_examples=15, deadline=None)
@given(JOBS, JOBS, st.sampled_from(["ckpt", "safetensors"]))
def test_any_slices_become_any_others_and_one_again(first, second, form):
    tensors = network()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_ranks(folder / "first", tensors, first)
        cut = MergeRequest(
            source=folder / "first",
            target=folder / "second",
            source_strategy=first,
            target_strategy=second,
            format=form,
            prefix="p",
        )
        files = merge_checkpoints(cut, STORES).files
        assert [held(file) for file in files] == [
            bits(slice_of(tensors, second, rank)) for rank in range(second.num_ranks)
        ]
        whole = MergeRequest(
            source=folder / "second", target=folder / "whole", source_strategy=second, verify=True
        )
        result = merge_checkpoints(whole, STORES)
        assert held(result.files[0]) == bits(tensors)
        assert result.check.checksums == sum(len(held(file)) for file in files)


@pytest.mark.parametrize(
    ("select", "states"), [(Selection.ALL, True), (Selection.WEIGHTS, False), (Selection.TRAINABLE, False)]
)
def test_optimizer_states_are_taken_or_left(tmp_path, select, states):
    tensors, job = network(), strategy(2)
    source = save_ranks(tmp_path / "src", tensors, job)
    request = MergeRequest(source=source, target=tmp_path / "dst", source_strategy=job, select=select)
    assert held(merge_checkpoints(request, STORES).files[0]) == bits(
        network(state=True)
        if states
        else {spec: array for spec, array in tensors.items() if spec.name.startswith("transformer.")}
    )


def test_only_what_has_a_state_was_trained(tmp_path):
    job = strategy(2)
    tensors = {
        spec: array
        for spec, array in network().items()
        if not spec.name.startswith("adam_") or spec.name.endswith("dense.weight")
    }
    source = save_ranks(tmp_path / "src", tensors, job)
    request = MergeRequest(
        source=source, target=tmp_path / "dst", source_strategy=job, select=Selection.TRAINABLE
    )
    names = set(held(merge_checkpoints(request, STORES).files[0]))
    assert names == {f"transformer.encoder.layers.{n}.self_attention.dense.weight" for n in range(3)}


def test_the_newest_step_of_several_is_merged(tmp_path):
    job = strategy(2)
    for name, seed in (
        ("g_rank_{rank}-200_1.ckpt", 1),
        ("g_rank_{rank}-1000_1.ckpt", 2),
        ("g_rank_{rank}-90_1.ckpt", 3),
    ):
        save_ranks(tmp_path / "src", network(seed=seed), job, name)
    result = merge_checkpoints(
        MergeRequest(source=tmp_path / "src", target=tmp_path / "dst", source_strategy=job), STORES
    )
    assert held(result.files[0]) == bits(network(seed=2))
    assert result.position == (1000, 1)


def test_a_target_folder_keeps_what_else_it_has(tmp_path):
    job = strategy(2)
    source = save_ranks(tmp_path / "src", network(), job)
    (source / "rank_0" / "config.json").write_text("{}")
    (source / "rank_0" / "tokenizer.model").write_text("t")
    (tmp_path / "dst/rank_0").mkdir(parents=True)
    (tmp_path / "dst/rank_0/config.json").write_text("mine")
    merge_checkpoints(MergeRequest(source=source, target=tmp_path / "dst", source_strategy=job), STORES)
    assert sorted(path.name for path in (tmp_path / "dst/rank_0").iterdir()) == [
        "checkpoint_0.ckpt",
        "checkpoint_0.ckpt.crc32",
        "config.json",
        "tokenizer.model",
    ]
    assert (tmp_path / "dst/rank_0/config.json").read_text() == "mine"


def test_progress_ends_at_the_whole(tmp_path):
    job, seen = strategy(2), []
    source = save_ranks(tmp_path / "src", network(), job)
    request = MergeRequest(
        source=source, target=tmp_path / "dst", source_strategy=job, target_strategy=strategy(4)
    )
    result = merge_checkpoints(request, STORES, lambda done, total, name: seen.append((done, total)))
    assert seen[-1] == (result.nbytes, result.nbytes)
    assert seen == sorted(seen)


def test_a_great_many_ranks_are_merged(tmp_path):
    """A hundred files are open at once where the shell allows 64."""
    name = "transformer.output_layer.weight"
    tensors = {(spec := TensorSpec(name, DType.FLOAT16, (1024, 3))): numbers(spec)}
    job = JobStrategy((Strategy({name: TensorLayout((128,), (0, -1))}, 128),))
    source = save_ranks(tmp_path / "src", tensors, job, "m.ckpt")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        result = merge_checkpoints(
            MergeRequest(source=source, target=tmp_path / "dst", source_strategy=job), STORES
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert held(result.files[0]) == bits(tensors)

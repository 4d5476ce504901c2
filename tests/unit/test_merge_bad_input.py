"""What a merge refuses: everything at once, with the sources untouched and no target."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from attrs import evolve

import glm3.domain.positional_io
from glm3.application.merge_checkpoints import MergeRequest, merge_checkpoints
from glm3.domain.checksums import write_checksums
from glm3.domain.errors import CheckpointError, Glm3Error, MissingFileError, StorageError, UsageError
from glm3.domain.layout.strategy import COMPLETE, JobStrategy, Strategy
from glm3.domain.layout.tensor_layout import TensorLayout
from glm3.domain.resumable_folder import unfinished_folder
from support.rank_checkpoints import STORES, network, save_ranks, slice_of, store_for, strategy
from support.tensors import save

JOB = strategy(2, 2, 2)
QKV = "transformer.encoder.layers.0.self_attention.query_key_value.weight"


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_ranks(tmp_path / "src", network(), JOB)


def refused(source: Path, **changes: object) -> str:
    """Try a merge, and return what it says after making sure that it left nothing and touched nothing."""
    target, before = source.parent / "dst", digest(source)
    request = MergeRequest(source=source, target=target, source_strategy=JOB)
    with pytest.raises(Glm3Error) as caught:
        merge_checkpoints(evolve(request, **changes), STORES)
    assert digest(source) == before
    assert not target.exists()
    assert not unfinished_folder(target).exists()
    return str(caught.value)


def file_of(source: Path, rank: int) -> Path:
    return source / f"rank_{rank}" / f"glm3_rank_{rank}-3_1.ckpt"


def test_missing_older_and_cut_files_are_told_together_rank_by_rank(source):
    shutil.rmtree(source / "rank_3")
    file_of(source, 6).rename(file_of(source, 6).with_name("glm3_rank_6-2_9.ckpt"))
    text = refused(source)
    assert "no folder of rank 3" in text
    assert "rank 6 has no file of the others' newest step" in text


def test_cut_and_empty_and_garbage_files_are_told_together(source):
    os.truncate(file_of(source, 1), 1000)
    os.truncate(file_of(source, 2), 0)
    file_of(source, 5).write_bytes(b"\xff" * 500)
    text = refused(source)
    assert [f"rank_{rank}/" in text for rank in range(8)] == [rank in (1, 2, 5) for rank in range(8)]


def test_a_file_cut_between_two_tensors_names_rank_and_parameters(source):
    part = slice_of(network(), JOB, 2)
    kept = {spec: array for spec, array in part.items() if spec.name != QKV and spec.shape != ()}
    save(store_for(file_of(source, 2)), file_of(source, 2), kept)
    text = refused(source)
    assert (
        f"rank 2 lacks parameters that the strategy gives it: {QKV}, epoch_num, step_num, loss_scale" in text
    )


def test_one_file_under_two_ranks_is_found_out(source):
    shutil.copy(file_of(source, 0), file_of(source, 1))
    assert "rank 1 has the slices of rank 0: one file is there twice" in refused(source)


def test_copies_that_differ_name_rank_and_parameter(source):
    tensors = network()
    norm = next(spec for spec in tensors if spec.name.endswith("layers.0.input_layernorm.weight"))
    job = strategy(2, 2, 2, optimizer=False)
    save_ranks(source, tensors, job)
    changed = slice_of(tensors, job, 3)
    changed[norm] = ~changed[norm].view("u2")
    save(
        store_for(file_of(source, 3)),
        file_of(source, 3),
        {k: v.view(k.dtype.carrier) for k, v in changed.items()},
    )
    text = refused(source, source_strategy=job)
    assert f"rank 3 differs from rank 0, of which it should hold copies: {norm.name}" in text
    assert "damaged, or of another run" in text


def test_counters_of_different_steps_differ(source):
    tensors = network()
    for spec in tensors:
        if spec.name == "step_num":
            tensors[spec] = tensors[spec] + 1
    save(store_for(file_of(source, 4)), file_of(source, 4), slice_of(tensors, JOB, 4))
    assert "rank 4 differs from rank 0, of which it should hold copies: step_num" in refused(source)


def test_slices_without_their_strategy_are_recognised(source):
    tensors = network()
    save_ranks(source, tensors, strategy(8))
    assert "these look like slices: name their strategy" in refused(source, source_strategy=None)
    alike = {spec: array for spec, array in tensors.items() if spec.name.startswith("adam_m.")}
    save_ranks(source, alike, strategy(8))
    text = refused(source, source_strategy=None)
    assert "rank 7 differs from rank 0, of which it should hold copies: adam_m." in text
    assert "these look like slices: name their strategy" in text


def test_a_bit_that_flipped_on_the_disk_names_rank_and_parameter(source):
    path = file_of(source, 7)
    with store_for(path).open(path) as reader:
        from glm3.domain.checksums import tensor_crc32

        write_checksums(path, {name: tensor_crc32(reader, name) for name in reader.tensors})
        content = reader.read("transformer.output_layer.weight").tobytes()
    whole = bytearray(path.read_bytes())
    whole[whole.index(content) + 5] ^= 1
    path.write_bytes(whole)
    text = refused(source)
    assert "rank 7 is not what was saved; its checksums differ in: transformer.output_layer.weight" in text


def test_a_strategy_of_more_ranks_or_of_fewer_is_of_another_job(source):
    assert "rank 8-15" in refused(source, source_strategy=strategy(4, 2, 2))
    assert "the strategy is of 4 ranks" in refused(source, source_strategy=strategy(2, 2, 1))


def test_a_strategy_of_another_cut_names_the_parameters(source):
    assert "it is for another shape" in refused(source, source_strategy=strategy(4, 1, 2))
    text = refused(source, source_strategy=renamed(strategy(4, 1, 2), "", ""))
    dense = "transformer.encoder.layers.0.self_attention.dense.weight"
    assert f"{dense}: the slices make a tensor of a shape that does not fit the others" in text


def renamed(job: JobStrategy, old: str, new: str) -> JobStrategy:
    return JobStrategy(
        tuple(
            Strategy(
                {new if name == old else name: layout for name, layout in stage.layouts.items()},
                stage.num_ranks,
                stage.stage,
            )
            for stage in job.stages
        )
    )


def test_a_strategy_of_another_model_names_what_it_lacks_and_what_it_has_too_much(source):
    text = refused(source, source_strategy=renamed(JOB, QKV, "other.weight"))
    assert "rank 4-7 lacks parameters that the strategy gives it" in text
    job = strategy(2, 2, 1)
    source = save_ranks(source.parent / "four", network(), job)
    text = refused(source, source_strategy=renamed(job, QKV, "other.weight"))
    assert f"the source strategy does not say how these are cut: {QKV}, adam_m.{QKV}, adam_v.{QKV}" in text
    assert "no rank has these, which the source strategy cuts: other.weight" in text


def test_a_target_strategy_that_cannot_cut_the_network_names_the_parameter(source):
    job = strategy(2, 1)
    layouts = {**job.stages[0].layouts, QKV: TensorLayout((1, 5), (0, -1))}
    five = JobStrategy(
        (
            Strategy(
                {name: TensorLayout((5,), (-1,) * len(x.tensor_map)) for name, x in layouts.items()}
                | {QKV: TensorLayout((1, 5), (0, -1))},
                5,
            ),
        )
    )
    text = refused(source, target_strategy=five)
    assert f"{QKV}: the target strategy cannot cut this" in text


def test_ranks_that_hold_other_dtypes_or_shapes_are_named(source):
    tensors = {}
    for spec, array in slice_of(network(), JOB, 1).items():
        keep = array[1:] if spec.name == QKV else array
        tensors[evolve(spec, shape=keep.shape)] = keep
    save(store_for(file_of(source, 1)), file_of(source, 1), tensors)
    text = refused(source)
    assert f"rank_1/glm3_rank_1-3_1.ckpt: {QKV}: is of another dtype or shape than on other ranks" in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "bin"}, "no such format"),
        ({"prefix": "a/b"}, "must be the start of a file name"),
        ({"prefix": ""}, "must be the start of a file name"),
    ],
)
def test_impossible_requests_are_refused(source, changes, reason):
    assert reason in refused(source, **changes)


def test_the_target_may_not_lie_in_the_source_nor_hold_the_file_already(source):
    for target in (source, source / "merged"):
        with pytest.raises(UsageError, match="inside the source"):
            merge_checkpoints(MergeRequest(source=source, target=target, source_strategy=JOB), STORES)
    request = MergeRequest(source=source, target=source.parent / "dst", source_strategy=JOB)
    result = merge_checkpoints(request, STORES)
    with pytest.raises(UsageError, match=r"exists already: .*checkpoint_0\.ckpt"):
        merge_checkpoints(request, STORES)
    assert merge_checkpoints(evolve(request, overwrite=True), STORES).files == result.files


def test_a_source_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(MissingFileError):
        merge_checkpoints(MergeRequest(source=tmp_path / "no", target=tmp_path / "dst"), STORES)


def test_a_place_that_may_not_be_written_is_an_error_of_ours(source):
    request = MergeRequest(source=source, target=Path("/proc/glm3"), source_strategy=JOB)
    with pytest.raises(StorageError, match="cannot be written"):
        merge_checkpoints(request, STORES)


def test_a_disk_too_small_is_told_before_anything_is_written(source, monkeypatch):
    monkeypatch.setattr("glm3.domain.positional_io.free_bytes", lambda _: 10)
    assert "not enough space for rank 0" in refused(source)


def test_a_disk_that_fills_leaves_what_is_finished_for_the_next_attempt(source, monkeypatch):
    target, job = source.parent / "dst", strategy(4)
    request = MergeRequest(source=source, target=target, source_strategy=JOB, target_strategy=job)
    write = glm3.domain.positional_io.os.pwrite
    written = 0

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal written
        written += len(data)
        if written > 100_000:
            raise OSError(28, "No space left on device")
        return write(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(glm3.domain.positional_io.os, "pwrite", pwrite)
        with pytest.raises(StorageError) as caught:
            merge_checkpoints(request, STORES)
    text = str(caught.value)
    assert "No space left on device; not finished: rank" in text
    assert "is kept for the next attempt" in text
    assert not target.exists()
    result = merge_checkpoints(request, STORES)
    assert 0 < len(result.kept) < 4
    assert [path.name for path in source.parent.iterdir() if path.name.startswith(".dst")] == []


def test_what_an_earlier_attempt_left_is_not_trusted(source, monkeypatch):
    """A finished file that has been damaged since, or is of other sources, is made anew."""
    target, job = source.parent / "dst", strategy(4)
    request = MergeRequest(source=source, target=target, source_strategy=JOB, target_strategy=job)
    complete = merge_checkpoints(evolve(request, target=source.parent / "other"), STORES)

    def attempt() -> Path:
        with monkeypatch.context() as patch:
            patch.setattr("glm3.domain.resumable_folder.publish", interrupt)
            with pytest.raises(KeyboardInterrupt):
                merge_checkpoints(request, STORES)
        return unfinished_folder(target) / "rank_2" / "checkpoint_2.ckpt"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    os.truncate(attempt(), 500)
    damaged = attempt()
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert merge_checkpoints(request, STORES).kept == (0, 1, 3)
    for file in complete.files:
        assert file.read_bytes() == (target / file.relative_to(source.parent / "other")).read_bytes()
    shutil.rmtree(target)
    attempt()
    os.utime(file_of(source, 0), (1, 1))
    assert merge_checkpoints(request, STORES).kept == ()


def test_verification_finds_what_the_disk_changed(source, monkeypatch):
    monkeypatch.setattr(
        "glm3.application.merge_checkpoints.write_checksums",
        lambda path, sums: write_checksums(path, {**sums, QKV: 1}),
    )
    target = source.parent / "dst"
    with pytest.raises(CheckpointError, match="reads back other than it was written"):
        merge_checkpoints(
            MergeRequest(source=source, target=target, source_strategy=JOB, verify=True), STORES
        )
    assert not target.exists()


def test_a_complete_checkpoint_needs_no_rank_folder(source):
    tensors = network(state=False)
    save(STORES[0], source.parent / "full.safetensors", tensors)
    result = merge_checkpoints(
        MergeRequest(
            source=source.parent / "full.safetensors",
            target=source.parent / "dst",
            target_strategy=strategy(2),
        ),
        STORES,
    )
    assert (result.source_ranks, len(result.files)) == (1, 2)
    assert COMPLETE.num_ranks == 1

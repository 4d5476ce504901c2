"""The service over several ranks, each a thread: one run, whatever its ranks share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.memory.journal import MemoryJournal
from glm3.adapters.memory.thread_communicator import ThreadWorld
from glm3.adapters.msckpt.store import MindSporeCheckpointStore
from glm3.adapters.strategy.store import FileStrategyStore
from glm3.application.auto_transform import AutoTransform
from glm3.application.finetune import FinetuneRequest
from glm3.application.rank_agreement import RankAgreement
from glm3.domain.checksums import read_checksums, tensor_crc32
from glm3.domain.errors import ConfigError, Glm3Error, MultipleFaultsError
from glm3.domain.parameters import to_mindspore_name
from glm3.domain.training.run_events import RunStarted, StepDone
from support.finetune import NETWORK, OneModel, run_config, service, weights_in

# Large enough for MindSpore's threshold of 64 KiB: the output layer and both of the layers' large matrices.
WIDE = {**NETWORK, "hidden_size": 64, "ffn_hidden_size": 256, "type": "ChatGLM2Config"}
PARALLEL = {
    "use_parallel": True,
    "parallel__enable_parallel_optimizer": True,
    "load_checkpoint": None,
    "model": {"model_config": WIDE},
}


def train(folder: Path, size: int, output: str = "output", *, stop_at: int | None = None, **changes):
    """Train on ``size`` ranks, 4 rows a step; return reports and journals by rank."""

    def body(communicator):
        journal = MemoryJournal()
        keys = {
            **PARALLEL,
            "parallel_config": {"data_parallel": size},
            "runner_config__batch_size": 4 // size,
            "train_dataset__tokenizer__vocab_file": str(folder / "small" / "tokenizer.model"),
            "use_parallel": size > 1,
            **changes,
        }
        config = run_config(folder / output, **keys)
        # Only the last rank is asked to stop.
        asked = stop_at is not None and communicator.rank == size - 1
        request = FinetuneRequest(config=config, stop=lambda: asked and len(journal.of(StepDone)) == stop_at)
        return service(folder, communicator=communicator).run(request, journal), journal

    OneModel(folder / "small")  # written before ranks read it
    return ThreadWorld(size, timeout=20).run(body)


def losses(journal):
    return [done.report.loss for done in journal.of(StepDone)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    ((_, journal),) = train(folder, 1)
    return losses(journal), weights_in(folder / "output" / "model")


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("shared", [False, True])
def test_ranks_train_what_one_trains(tmp_path, alone, size, shared):
    expected, weights = alone
    trained = train(tmp_path, size, parallel__enable_parallel_optimizer=shared)
    for report, journal in trained:
        assert losses(journal) == pytest.approx(expected, rel=1e-5)
        assert journal.of(RunStarted)[0].world_size == size
        assert report.model_folder == tmp_path / "output" / "model"
    found = weights_in(tmp_path / "output" / "model")
    for name, array in weights.items():
        np.testing.assert_allclose(found[name], array, atol=1e-4, err_msg=name)


def test_each_rank_saves_its_part_and_how_it_was_cut(tmp_path):
    """Parts of weights and of their moments make the whole, as the strategy files say."""
    train(tmp_path, 2)
    root = tmp_path / "output"
    written = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    each = {
        "checkpoint/rank_{0}/small_rank_{0}-2_1.ckpt",
        "checkpoint/rank_{0}/small_rank_{0}-2_3.ckpt",
        "checkpoint/rank_{0}/last",
        "checkpoint/rank_{0}/run.json",
        "checkpoint_network/rank_{0}/small_rank_{0}-network.ckpt",
        "strategy/ckpt_strategy_rank_{0}.ckpt",
        "log/rank_{0}/info.log",
    }
    assert {name.format(rank) for name in each for rank in range(2)} <= written
    assert "log/rank_0/metrics.jsonl" in written
    assert "log/rank_1/metrics.jsonl" not in written
    job = FileStrategyStore().read(root / "strategy")
    whole = weights_in(root / "model")
    parts = [root / f"checkpoint/rank_{rank}/small_rank_{rank}-2_3.ckpt" for rank in range(2)]
    cut = 0
    for rank, part in enumerate(parts):
        with MindSporeCheckpointStore().open(part) as reader:
            assert read_checksums(part) == {name: tensor_crc32(reader, name) for name in reader.tensors}
            for name, array in whole.items():
                name = to_mindspore_name(name)
                box = job.slices(name, array.shape, rank)
                np.testing.assert_array_equal(reader.read(name), array[box], err_msg=name)
                moment = reader.read(f"adam_m.{name}")
                assert moment.shape == array[box].shape
                cut += moment.size < array.size
    assert cut == 2 * 5


@pytest.mark.parametrize("shared", [False, True])
def test_a_stopped_job_goes_on_bit_for_bit(tmp_path, shared):
    """A stop that one rank is asked for stops them all, after the same step."""
    switch = {"parallel__enable_parallel_optimizer": shared}
    straight = train(tmp_path, 2, "straight", **switch)
    stopped = train(tmp_path, 2, "resumed", stop_at=3, **switch)
    assert [report.loop.steps_done for report, _ in stopped] == [3, 3]
    resumed = train(tmp_path, 2, "resumed", resume_training=True, load_checkpoint="last", **switch)
    for (_, early), (_, late), (_, whole) in zip(stopped, resumed, straight, strict=True):
        assert losses(early) + losses(late) == losses(whole)
    expected, found = weights_in(tmp_path / "straight" / "model"), weights_in(tmp_path / "resumed" / "model")
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


def test_ranks_go_on_from_the_last_step_that_all_have(tmp_path):
    """Rank 1 was killed while it saved step 6; rank 0 has it."""
    straight = train(tmp_path, 2, "straight")
    train(tmp_path, 2, "killed")
    shutil.rmtree(tmp_path / "killed" / "model")
    (tmp_path / "killed/checkpoint/rank_1/small_rank_1-2_3.ckpt").unlink()
    place = str(tmp_path / "killed" / "checkpoint")
    resumed = train(tmp_path, 2, "killed", resume_training=True, load_checkpoint=place)
    for (_, late), (_, whole) in zip(resumed, straight, strict=True):
        assert late.of(RunStarted)[0].steps_done == 4
        assert losses(late) == losses(whole)[4:]


@pytest.mark.parametrize("size", [1, 4])
def test_parts_do_not_go_on_as_another_number_of_ranks(tmp_path, size):
    train(tmp_path, 2, stop_at=3)
    with pytest.raises(ConfigError, match="fits another job") as caught:
        train(
            tmp_path, size, resume_training=True, load_checkpoint=str(tmp_path / "output/checkpoint/rank_0")
        )
    assert caught.value.found == "the part of rank 0 of 2 ranks"
    assert "glm3 merge" in caught.value.hint


def test_what_every_rank_has_whole_goes_on_as_any_number_of_ranks(tmp_path, alone):
    """A run of one process becomes one of two that share the optimizer."""
    expected, _ = alone
    train(tmp_path, 1, "first", stop_at=3)
    checkpoint = next((tmp_path / "first/checkpoint/rank_0").glob("*-1_3.ckpt"))
    resumed = train(tmp_path, 2, "second", resume_training=True, load_checkpoint=str(checkpoint))
    for _, journal in resumed:
        assert losses(journal) == pytest.approx(expected[3:], rel=1e-5)


@pytest.mark.parametrize(
    ("size", "changes", "told"),
    [
        (1, {"use_parallel": True, "parallel_config": {"data_parallel": 8}}, "glm3 launch --workers 8"),
        (2, {"parallel_config": {"data_parallel": 4}}, "should be equal to device_num, but get dp:4, mp:1"),
        (2, {"use_parallel": False}, "add use_parallel=True"),
    ],
)
def test_a_job_of_the_wrong_size_is_refused_on_every_rank(tmp_path, size, changes, told):
    with pytest.raises(MultipleFaultsError) as caught:
        train(tmp_path, size, **changes)
    assert told in str(caught.value)


def test_evaluation_is_done_once_and_decides_for_all(tmp_path):
    trained = train(tmp_path, 2, do_eval=True, eval_step_interval=2)
    scores = [report.loop.best_score for report, _ in trained]
    assert scores[0] == scores[1] is not None
    best = [
        (tmp_path / f"output/checkpoint/rank_{rank}/best").read_text().split("\n")[0] for rank in range(2)
    ]
    assert best[0].replace("rank_0", "rank_1") == best[1]
    record = json.loads((tmp_path / "output/checkpoint/rank_1/run.json").read_text())
    assert (record["rank"], record["sharing"]) == (1, 2)


@pytest.mark.parametrize("size", [1, 4])
def test_merged_parts_go_on_as_another_number_of_ranks(tmp_path, alone, size):
    expected, _ = alone
    train(tmp_path, 2, "first", stop_at=3)
    resumed = train(
        tmp_path,
        size,
        "second",
        resume_training=True,
        load_checkpoint=str(tmp_path / "first/checkpoint"),
        auto_trans_ckpt=True,
    )
    for _, journal in resumed:
        assert losses(journal) == pytest.approx(expected[3:], rel=1e-5)
    made = tmp_path / "second/transformed_checkpoint"
    assert (made / "transform_succeed_rank_0.txt").is_file()
    assert json.loads((made / "rank_0/run.json").read_text()).get("sharing") is None


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("kind", ["checkpoint", "checkpoint_network"])
def test_a_run_starts_from_merged_parts_as_from_the_finished_model(tmp_path, size, kind):
    train(tmp_path, 2, "first")
    fresh = train(tmp_path, size, "model", load_checkpoint=str(tmp_path / "first/model"))
    merged = train(
        tmp_path, size, "parts", load_checkpoint=str(tmp_path / "first" / kind), auto_trans_ckpt=True
    )
    assert [losses(journal) for _, journal in merged] == [losses(journal) for _, journal in fresh]


def test_parts_are_not_taken_for_a_model_unless_merging_is_allowed(tmp_path):
    train(tmp_path, 2, "first")
    with pytest.raises(ConfigError, match="cut into slices of 2 ranks") as caught:
        train(tmp_path, 1, "second", load_checkpoint=str(tmp_path / "first/checkpoint"))
    assert (caught.value.field, caught.value.expected) == ("auto_trans_ckpt", True)


def test_every_rank_ends_when_the_first_cannot_merge(tmp_path):
    train(tmp_path, 2, "first")
    shutil.rmtree(tmp_path / "first/checkpoint/rank_1")
    keys = {"load_checkpoint": str(tmp_path / "first/checkpoint"), "auto_trans_ckpt": True}
    ended: list[BaseException] = []

    def body(communicator):
        config = run_config(tmp_path / "second", **PARALLEL | keys)
        transform = AutoTransform(
            stores=[MindSporeCheckpointStore()],
            strategies=FileStrategyStore(),
            agreement=RankAgreement(communicator),
        )
        try:
            transform.apply(config, communicator.rank, communicator.world_size)
        except Glm3Error as error:
            ended.append(error)

    ThreadWorld(3, timeout=20).run(body)
    assert sorted(type(error).__name__ for error in ended) == [
        "CheckpointError",
        "CheckpointError",
        "MultipleFaultsError",
    ]
    assert {str(error).count("rank 0 could not merge") for error in ended} == {0, 1}
    marker = tmp_path / "second/transformed_checkpoint/transform_failed_rank_0.txt"
    assert "no folder of rank 1" in marker.read_text()

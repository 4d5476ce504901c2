"""The service over ranks that share matrices, each a thread: what they store, join and go on with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.memory.journal import MemoryJournal
from glm3.adapters.memory.thread_communicator import ThreadWorld
from glm3.adapters.msckpt.store import MindSporeCheckpointStore
from glm3.adapters.strategy.store import FileStrategyStore
from glm3.application.finetune import FinetuneRequest
from glm3.application.merge_checkpoints import MergeRequest, merge_checkpoints
from glm3.application.slice_targets import Selection
from glm3.domain.errors import ConfigError, Glm3Error
from glm3.domain.parameters import from_mindspore_name
from glm3.domain.training.run_events import StepDone
from support.finetune import NETWORK, OneModel, run_config, service, weights_in

WIDE = {**NETWORK, "hidden_size": 64, "ffn_hidden_size": 256, "type": "ChatGLM2Config"}
LORA = {"pet_type": "lora", "target_modules": ".*query_key_value.*", "lora_rank": 2, "lora_alpha": 4}


def train(
    folder: Path, copies: int, ways: int, output: str = "output", *, stop_at: int | None = None, **keys
):
    """Train on ``copies * ways`` ranks, 4 rows a step; return reports and losses by rank."""
    size = copies * ways

    def body(communicator):
        journal = MemoryJournal()
        changes = {
            "use_parallel": size > 1,
            "parallel_config": {"data_parallel": copies, "model_parallel": ways},
            "load_checkpoint": None,
            "model": {"model_config": WIDE},
            "runner_config__batch_size": 4 // copies,
            "train_dataset__tokenizer__vocab_file": str(folder / "small" / "tokenizer.model"),
            **keys,
        }
        asked = stop_at is not None and communicator.rank == size - 1
        request = FinetuneRequest(
            config=run_config(folder / output, **changes),
            stop=lambda: asked and len(journal.of(StepDone)) == stop_at,
        )
        report = service(folder, communicator=communicator).run(request, journal)
        return report, [done.report.loss for done in journal.of(StepDone)]

    OneModel(folder / "small")
    return ThreadWorld(size, timeout=20).run(body)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    ((_, losses),) = train(folder, 1, 1)
    return losses, weights_in(folder / "output" / "model")


CUTS = [
    (1, 2, {}),
    (1, 4, {"parallel_config__vocab_emb_dp": False}),
    (2, 2, {"parallel__enable_parallel_optimizer": True}),
]


@pytest.mark.parametrize(("copies", "ways", "keys"), CUTS)
def test_parts_joined_as_their_strategy_says_are_the_whole(tmp_path, alone, copies, ways, keys):
    """The model folder, and glm3 merge of the parts, hold what one process leaves."""
    expected, weights = alone
    trained = train(tmp_path, copies, ways, **keys)
    for report, losses in trained:
        assert losses == pytest.approx(expected, rel=1e-5)
        assert report.model_folder == tmp_path / "output" / "model"
    root = tmp_path / "output"
    whole = weights_in(root / "model")
    for name, array in weights.items():
        np.testing.assert_allclose(whole[name], array, atol=1e-4, err_msg=name)
    job = FileStrategyStore().read(root / "strategy")
    assert job.num_ranks == copies * ways
    for kind in ("checkpoint", "checkpoint_network"):
        request = MergeRequest(
            source=root / kind,
            target=tmp_path / kind,
            source_strategy=job,
            select=Selection.WEIGHTS,
            verify=True,
        )
        merge_checkpoints(request, [MindSporeCheckpointStore()])
        (made,) = (tmp_path / kind).rglob("*.ckpt")
        with MindSporeCheckpointStore().open(made) as reader:
            found = {from_mindspore_name(name): reader.read(name) for name in reader.tensors}
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in whole.items()
        }
    record = json.loads((root / "checkpoint/rank_1/run.json").read_text())
    assert (record["sharing"], record["model_parallel"]) == (copies * ways, ways)


@pytest.mark.parametrize(("copies", "ways", "keys"), CUTS)
def test_a_stopped_job_goes_on_bit_for_bit(tmp_path, copies, ways, keys):
    straight = train(tmp_path, copies, ways, "straight", **keys)
    train(tmp_path, copies, ways, "resumed", stop_at=3, **keys)
    resumed = train(tmp_path, copies, ways, "resumed", resume_training=True, load_checkpoint="last", **keys)
    for (_, late), (_, whole) in zip(resumed, straight, strict=True):
        assert late == whole[3:]
    expected, found = weights_in(tmp_path / "straight" / "model"), weights_in(tmp_path / "resumed" / "model")
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


@pytest.mark.parametrize(("copies", "ways"), [(1, 1), (4, 1), (1, 4)])
def test_parts_go_on_as_another_cut_once_they_are_joined(tmp_path, alone, copies, ways):
    expected, _ = alone
    shared = {"parallel__enable_parallel_optimizer": True}
    train(tmp_path, 2, 2, "first", stop_at=3, **shared)
    going_on = {"resume_training": True, **shared, "load_checkpoint": str(tmp_path / "first/checkpoint")}
    resumed = train(tmp_path, copies, ways, "second", auto_trans_ckpt=True, **going_on)
    for _, losses in resumed:
        assert losses == pytest.approx(expected[3:], rel=1e-5)
    if copies * ways == 4:
        one = str(next((tmp_path / "first/checkpoint/rank_0").glob("*-1_3.ckpt")))
        with pytest.raises(ConfigError, match="cut otherwise") as caught:
            train(tmp_path, copies, ways, "third", **going_on | {"load_checkpoint": one})
        assert (caught.value.expected, caught.value.found) == (2, ways)


@pytest.mark.parametrize(
    ("ways", "keys", "field", "told"),
    [
        (3, {}, "num_attention_heads", "not divisible by model_parallel 3"),
        (3, {}, "multi_query_group_num", "a divisor or a multiple of 3"),
        (
            2,
            {"model__model_config": WIDE | {"padded_vocab_size": 269}},
            "padded_vocab_size",
            "a multiple of 2",
        ),
        (2, {"model__model_config": WIDE | {"ffn_hidden_size": 255}}, "ffn_hidden_size", "found 255"),
        (2, {"do_eval": True, "eval_step_interval": 2}, "do_eval", "glm3 evaluate"),
        (
            2,
            {
                "model__model_config": WIDE | {"pet_config": LORA},
                "parallel__strategy_ckpt_config__only_trainable_params": False,
            },
            "parallel_config.model_parallel",
            "train no adapter",
        ),
    ],
)
def test_what_cannot_be_shared_is_named_before_anything_is_loaded(tmp_path, ways, keys, field, told):
    with pytest.raises(Glm3Error) as caught:
        train(tmp_path, 1, ways, **keys)
    assert field in str(caught.value)
    assert told in str(caught.value)
    assert not (tmp_path / "output" / "checkpoint").exists()

"""The service over memory adapters: order of checks, files, names, resumption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.memory.journal import MemoryJournal
from glm3.application.finetune import FinetuneRequest
from glm3.domain.training.run_events import EvaluationDone, RunEnded, RunStarted, StepDone
from support.finetune import run_config, service, weights_in


def finetune(tmp_path: Path, output: str = "output", journal: MemoryJournal | None = None, **changes):
    request = FinetuneRequest(config=run_config(tmp_path / output, **changes))
    return service(tmp_path).run(request, journal or MemoryJournal())


def test_a_run_learns_and_leaves_the_tree_of_the_model_card(tmp_path: Path) -> None:
    journal = MemoryJournal()
    report = finetune(tmp_path, journal=journal, runner_config__epochs=10)
    losses = [done.report.loss for done in journal.of(StepDone)]
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 2
    root = tmp_path / "output"
    written = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert written == {
        "checkpoint/rank_0/small_rank_0-10_1.ckpt",
        "checkpoint/rank_0/small_rank_0-10_3.ckpt",
        "checkpoint/rank_0/small_rank_0-10_1.ckpt.crc32",
        "checkpoint/rank_0/small_rank_0-10_3.ckpt.crc32",
        "checkpoint/rank_0/last",
        "checkpoint/rank_0/run.json",
        "checkpoint/rank_0/config.json",
        "checkpoint/rank_0/tokenizer.model",
        "checkpoint_network/rank_0/small_rank_0-network.ckpt",
        "checkpoint_network/rank_0/small_rank_0-network.ckpt.crc32",
        "checkpoint_network/rank_0/glm3.yaml",
        "checkpoint_network/rank_0/tokenizer.model",
        "log/rank_0/info.log",
        "log/rank_0/error.log",
        "log/rank_0/metrics.jsonl",
        "log/rank_0/metrics.csv",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.model",
    }
    assert report.model_folder == root / "model"
    assert report.next_command == f"glm3 chat -m {root / 'model'}"
    assert journal.of(RunEnded)
    assert journal.closed


def test_a_resumed_run_ends_bit_equal_to_the_straight_one(tmp_path: Path) -> None:
    finetune(tmp_path, "straight")
    stopped = MemoryJournal()
    request = FinetuneRequest(
        config=run_config(tmp_path / "resumed"), stop=lambda: len(stopped.of(StepDone)) == 3
    )
    report = service(tmp_path).run(request, stopped)
    assert report.loop.interrupted
    assert report.model_folder is None
    resumed = MemoryJournal()
    finetune(tmp_path, "resumed", resumed, resume_training=True, load_checkpoint="last")
    assert resumed.of(RunStarted)[0].steps_done == 3
    straight, again = weights_in(tmp_path / "straight" / "model"), weights_in(tmp_path / "resumed" / "model")
    assert straight.keys() == again.keys()
    for name, array in straight.items():
        assert array.tobytes() == again[name].tobytes(), name
    lines = [
        (tmp_path / run / "log" / "rank_0" / "metrics.jsonl").read_text().splitlines()
        for run in ("straight", "resumed")
    ]
    losses = [[json.loads(line)["loss"] for line in run] for run in lines]
    assert losses[0] == losses[1]


def checkpoints(tmp_path: Path, output: str = "output") -> list[str]:
    return sorted(path.name for path in (tmp_path / output / "checkpoint" / "rank_0").glob("*.ckpt"))


def test_a_second_run_in_one_place_overwrites_nothing_of_the_first(tmp_path: Path) -> None:
    finetune(tmp_path)
    first = checkpoints(tmp_path)
    report = finetune(tmp_path)
    again = checkpoints(tmp_path)
    assert set(first) < set(again)
    assert {name for name in again if name not in first} == {
        "small_rank_0_1-2_1.ckpt",
        "small_rank_0_1-2_3.ckpt",
    }
    assert report.model_folder == tmp_path / "output" / "model_1"
    assert (tmp_path / "output" / "model").is_dir()


def test_a_sink_cuts_the_names_and_nothing_else(tmp_path: Path) -> None:
    finetune(tmp_path, "plain")
    finetune(tmp_path, "sunk", runner_config__sink_mode=True, runner_config__sink_size=1)
    assert checkpoints(tmp_path, "sunk") == ["small_rank_0-4_1.ckpt", "small_rank_0-6_1.ckpt"]
    plain, sunk = weights_in(tmp_path / "plain" / "model"), weights_in(tmp_path / "sunk" / "model")
    assert all(array.tobytes() == sunk[name].tobytes() for name, array in plain.items())


def test_accumulated_rows_count_as_one_batch(tmp_path: Path) -> None:
    """Twice two rows learn what four rows learn, to rounding."""
    finetune(tmp_path, "whole")
    finetune(
        tmp_path,
        "parts",
        runner_config__batch_size=2,
        runner_config__gradient_accumulation_steps=2,
    )
    whole, parts = weights_in(tmp_path / "whole" / "model"), weights_in(tmp_path / "parts" / "model")
    for name, array in whole.items():
        np.testing.assert_allclose(parts[name], array, atol=1e-4)


def test_a_run_resumed_from_an_older_checkpoint_keeps_the_newer_ones(tmp_path: Path) -> None:
    finetune(tmp_path)
    older = tmp_path / "output" / "checkpoint" / "rank_0" / "small_rank_0-2_1.ckpt"
    finetune(tmp_path, resume_training=True, load_checkpoint=str(older))
    assert "small_rank_0_1-2_3.ckpt" in checkpoints(tmp_path)
    assert "small_rank_0-2_3.ckpt" in checkpoints(tmp_path)


def test_a_run_goes_on_from_the_folder_of_its_ranks(tmp_path: Path) -> None:
    finetune(tmp_path)
    journal = MemoryJournal()
    finetune(
        tmp_path,
        journal=journal,
        resume_training=True,
        load_checkpoint=str(tmp_path / "output" / "checkpoint"),
        runner_config__epochs=3,
    )
    assert journal.of(RunStarted)[0].steps_done == 6
    assert len(journal.of(StepDone)) == 3
    assert all(name.startswith("small_rank_0-") for name in checkpoints(tmp_path))


@pytest.mark.parametrize("place", ["model", "checkpoint", "checkpoint/rank_0", "last"])
def test_a_new_run_starts_from_the_weights_of_an_old_one(tmp_path: Path, place: str) -> None:
    first = finetune(tmp_path, "first", runner_config__epochs=20)
    journal = MemoryJournal()
    pointer = tmp_path / "first" / "checkpoint" / "rank_0" / "last"
    name = str(pointer if place == "last" else tmp_path / "first" / place)
    finetune(tmp_path, "second", journal, load_checkpoint=name, lr_schedule__learning_rate=0.002)
    assert journal.of(RunStarted)[0].steps_done == 0
    assert first.loop.first_loss is not None
    assert journal.of(StepDone)[0].report.loss < first.loop.first_loss / 2


def test_an_evaluation_points_to_the_best_checkpoint_which_retention_spares(tmp_path: Path) -> None:
    scores = iter([1.0, 3.0, 2.0, 2.0, 2.0, 2.0])
    journal = MemoryJournal()
    request = FinetuneRequest(
        config=run_config(
            tmp_path / "output",
            do_eval=True,
            eval_step_interval=1,
            callbacks__0__keep_checkpoint_max=1,
            callbacks__0__save_checkpoint_steps=5,
        )
    )
    report = service(tmp_path, score_texts=lambda *_: {"rouge-l": next(scores)}).run(request, journal)
    assert (report.loop.best_step, report.loop.best_score) == (2, 3.0)
    assert [event.step for event in journal.of(EvaluationDone) if event.best] == [1, 2]
    assert checkpoints(tmp_path) == ["small_rank_0-1_2.ckpt", "small_rank_0-2_3.ckpt"]
    assert (tmp_path / "output/checkpoint/rank_0/best").read_text().startswith("small_rank_0-1_2.ckpt\n")
    assert {"loss", "perplexity", "rouge-l"} == journal.of(EvaluationDone)[0].scores.keys()


def test_the_best_of_before_an_interruption_is_remembered(tmp_path: Path) -> None:
    keys = {"do_eval": True, "eval_step_interval": 1}
    stopped = MemoryJournal()
    request = FinetuneRequest(
        config=run_config(tmp_path / "output", **keys), stop=lambda: len(stopped.of(StepDone)) == 2
    )
    service(tmp_path, score_texts=lambda *_: {"rouge-l": 9.0}).run(request, stopped)
    resumed = FinetuneRequest(
        config=run_config(tmp_path / "output", **keys, resume_training=True, load_checkpoint="last")
    )
    report = service(tmp_path, score_texts=lambda *_: {"rouge-l": 8.0}).run(resumed, MemoryJournal())
    assert (report.loop.best_step, report.loop.best_score) == (1, 9.0)


def test_an_evaluation_by_epoch_comes_at_the_end_of_each(tmp_path: Path) -> None:
    journal = MemoryJournal()
    finetune(tmp_path, journal=journal, do_eval=True, eval_step_interval=-1, eval_epoch_interval=1)
    assert [event.step for event in journal.of(EvaluationDone)] == [3, 6]


def test_the_report_tells_speed_memory_place_and_what_next(tmp_path: Path) -> None:
    told = "\n".join(finetune(tmp_path).lines())
    for part in ("tokens/s", "peak memory 1.00 GB", "output/model", "next: glm3 chat -m"):
        assert part in told


def test_the_first_steps_are_left_out_where_the_file_says_so(tmp_path: Path) -> None:
    journal = MemoryJournal()
    keys = {"runner_config__initial_epoch": 1, "runner_config__initial_step": 1}
    finetune(tmp_path, journal=journal, **keys)
    assert [done.step for done in journal.of(StepDone)] == [5, 6]

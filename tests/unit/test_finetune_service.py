"""The service over memory adapters: order of checks, files, names, resumption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.memory.journal import MemoryJournal
from glm3.application.finetune import FinetuneRequest
from glm3.domain.errors import Glm3Error
from glm3.domain.training.run_events import CheckpointSaved, RunEnded, RunStarted, StepDone
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
        "checkpoint/rank_0/last",
        "checkpoint/rank_0/run.json",
        "checkpoint/rank_0/config.json",
        "checkpoint/rank_0/tokenizer.model",
        "checkpoint_network/rank_0/small_rank_0-network.ckpt",
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

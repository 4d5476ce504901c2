"""A run on MindSpore that is killed for real, at any moment, and goes on as if it had not been."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from support import finetune_process
from support.finetune import train_on_mindspore, weights_in

STEPS = 24


def kill_after(metrics: Path, lines: int, seconds: float, folder: Path, output: str) -> None:
    """Start a run, and kill -9 it some seconds after so many steps."""
    command = [sys.executable, str(finetune_process.__file__), str(folder), output]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while run.poll() is None and len(losses_in(metrics)) < lines:
            time.sleep(0.005)
        time.sleep(seconds)
    finally:
        run.kill()
        _, stderr = run.communicate()
    assert metrics.is_file(), stderr


def losses_in(metrics: Path) -> list[float]:
    lines = metrics.read_text().split("\n")[:-1] if metrics.is_file() else []
    return [json.loads(line)["loss"] for line in lines]


def test_a_killed_run_resumes_to_the_bits_of_the_straight_one(tmp_path: Path) -> None:
    """Losses and final weights are equal; the moment differs from test run to test run."""
    moment = random.SystemRandom()
    metrics = tmp_path / "killed" / "log" / "rank_0" / "metrics.jsonl"
    kill_after(metrics, moment.randrange(5, STEPS - 7), moment.uniform(0, 0.02), tmp_path, "killed")
    told = losses_in(metrics)
    assert len(told) < STEPS
    resumed = train_on_mindspore(tmp_path, "killed", resume_training=True, load_checkpoint="last")
    straight = train_on_mindspore(tmp_path, "straight")
    assert 0 < resumed.loop.steps_here < straight.loop.steps_here == STEPS
    expected = losses_in(tmp_path / "straight" / "log" / "rank_0" / "metrics.jsonl")
    assert told == expected[: len(told)]
    assert losses_in(metrics) == expected
    wanted, got = weights_in(tmp_path / "straight" / "model"), weights_in(tmp_path / "killed" / "model")
    assert {name: array.tobytes() for name, array in got.items()} == {
        name: array.tobytes() for name, array in wanted.items()
    }

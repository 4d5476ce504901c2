"""A job of real ranks that is killed, all of them at once and at any moment, and goes on bit for bit."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from support.finetune import NETWORK, OneModel, train_on_mindspore, weights_in
from support.worlds import Processes

STEPS, RANKS = 24, 2
WIDE = {**NETWORK, "hidden_size": 64, "ffn_hidden_size": 256, "type": "ChatGLM2Config"}


def on_rank_finetune(communicator, folder, output, **changes):
    report = train_on_mindspore(
        Path(folder),
        output,
        communicator,
        use_parallel=True,
        parallel_config={"data_parallel": RANKS},
        parallel={"enable_parallel_optimizer": True},
        model={"model_config": WIDE},
        load_checkpoint=changes.pop("load_checkpoint", None),
        train_dataset__tokenizer__vocab_file=str(Path(folder) / "small" / "tokenizer.model"),
        runner_config__batch_size=3,
        runner_config__gradient_accumulation_steps=1,
        **changes,
    )
    return report.loop.steps_here


def on_rank_go_on(communicator, folder, output):
    return on_rank_finetune(communicator, folder, output, resume_training=True, load_checkpoint="last")


def losses_in(metrics):
    lines = metrics.read_text().split("\n")[:-1] if metrics.is_file() else []
    return [line.split('"loss": ')[1].split(",")[0] for line in lines]


@pytest.mark.slow
def test_a_killed_job_resumes_to_the_bits_of_the_straight_one(tmp_path):
    OneModel(tmp_path / "small")
    moment = random.SystemRandom()
    metrics = tmp_path / "killed" / "log" / "rank_0" / "metrics.jsonl"
    wanted, seconds, end = moment.randrange(5, STEPS - 7), moment.uniform(0, 0.05), time.monotonic() + 120
    job = Processes(RANKS)
    try:
        job.begin(on_rank_finetune, str(tmp_path), "killed")
        while len(losses_in(metrics)) < wanted and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(seconds)
    finally:
        job.kill()
    told = losses_in(metrics)
    assert wanted <= len(told) < STEPS
    job = Processes(RANKS)
    try:
        here = job.run(on_rank_go_on, str(tmp_path), "killed")
        assert here[0] == here[1] < STEPS
        assert job.run(on_rank_finetune, str(tmp_path), "straight") == [STEPS, STEPS]
        job.close()
    finally:
        job.kill()
    expected = losses_in(tmp_path / "straight" / "log" / "rank_0" / "metrics.jsonl")
    assert told == expected[: len(told)]
    assert losses_in(metrics) == expected
    straight, resumed = weights_in(tmp_path / "straight" / "model"), weights_in(tmp_path / "killed" / "model")
    assert {name: array.tobytes() for name, array in resumed.items()} == {
        name: array.tobytes() for name, array in straight.items()
    }

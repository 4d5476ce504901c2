"""glm3 finetune, eval, plan and the run modes that mean them, as a user calls them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.cli import glm3

CONFIG = str(Path(__file__).parents[2] / "configs" / "glm3" / "glm3_tiny.yaml")
NUMPY = {"GLM3_BACKEND": "numpy"}
"""Seconds instead of minutes: only the output layer learns, everything around it is the same."""

SHORT = ["train_dataset.data_loader.num_samples=8", "runner_config.batch_size=2"]
ROWS = "eval_dataset.data_loader.num_samples=2"


def finetune(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return glm3("finetune", "--config", CONFIG, *SHORT, *words, cwd=folder, environment=NUMPY, timeout=120)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a short run has left its output."""
    folder = tmp_path_factory.mktemp("trained")
    done = finetune(folder)
    assert done.returncode == 0, done.stderr
    assert "model output/model" in done.stdout
    assert "next: glm3 chat -m output/model" in done.stdout
    assert "step 4/4" in done.stderr
    assert "Traceback" not in done.stderr
    return folder


def test_the_next_command_works(trained: Path) -> None:
    """What finetuning wrote can be loaded by what it names."""
    done = glm3(
        "predict", "-m", "output/model", "--max-new-tokens", "2", "你好", cwd=trained, environment=NUMPY
    )
    assert done.returncode == 0, done.stderr
    network = "output/checkpoint_network/rank_0"
    done = glm3("predict", "-m", network, "--max-new-tokens", "2", "你好", cwd=trained, environment=NUMPY)
    assert done.returncode == 0, done.stderr


def test_eval_prints_scores_and_writes_every_answer(trained: Path) -> None:
    done = glm3("eval", "-m", "output/model", ROWS, "--json", cwd=trained, environment=NUMPY, timeout=120)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert {"rouge-1", "rouge-2", "rouge-l", "bleu-4", "bleu-4-words", "loss", "perplexity"} == scores.keys()
    written = json.loads((trained / "output" / "evaluation.json").read_text(encoding="utf-8"))
    assert written["scores"] == scores
    assert len(written["predictions"]) == written["rows"] == 2


def test_the_run_modes_mean_the_same(trained: Path) -> None:
    run = ["run", "--config", CONFIG, "--output_dir", "run"]
    words = ["--num_samples", "8", "--batch_size", "2"]
    done = glm3(*run, "--run_mode", "finetune", *words, cwd=trained, environment=NUMPY, timeout=120)
    assert done.returncode == 0, done.stderr
    checkpoint = "glm3-tiny_rank_0-1_4.ckpt"
    assert (trained / "run" / "checkpoint" / "rank_0" / checkpoint).is_file()
    same = [(trained / folder / "model" / "model.safetensors").read_bytes() for folder in ("output", "run")]
    assert same[0] == same[1]
    load = ["--load_checkpoint", "run/model", f"--{ROWS}"]
    done = glm3(*run, "--run_mode", "eval", *load, cwd=trained, environment=NUMPY, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("loss: ")


def test_an_interrupted_run_is_saved_and_goes_on(tmp_path: Path) -> None:
    long = ["train_dataset.data_loader.num_samples=400", "runner_config.batch_size=4"]
    command = [sys.executable, "-m", "glm3", "finetune", "--config", CONFIG, *long]
    run = subprocess.Popen(
        command, cwd=tmp_path, env={**NUMPY, "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "output" / "log" / "rank_0" / "metrics.jsonl"
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and not (metrics.is_file() and metrics.stat().st_size):
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        stdout, _ = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 0
    assert "resume_training=True load_checkpoint=output/checkpoint/rank_0/last" in stdout
    steps = len(metrics.read_text().splitlines())
    assert (tmp_path / "output" / "checkpoint" / "rank_0" / f"glm3-tiny_rank_0-1_{steps}.ckpt").is_file()
    assert not (tmp_path / "output" / "model").exists()


def test_faults_end_with_a_message_and_a_code(tmp_path: Path) -> None:
    done = finetune(tmp_path, "model.model_config.seq_length=100")
    assert done.returncode == 2
    assert "max_source_length 64 + max_target_length 127 + 1" in done.stderr
    done = finetune(tmp_path, "train_dataset.data_loader.dataset_dir=nowhere.json")
    assert done.returncode == 1
    assert "nowhere.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "output").exists()


def test_a_plan_for_cards_says_what_it_does_not_count(tmp_path: Path) -> None:
    cards = str(Path(CONFIG).with_name("run_glm3_6b_finetune_800T_A2_64G.yaml"))
    done = glm3("plan", "--config", cards, cwd=tmp_path)
    assert "(device)" in done.stdout
    assert "graph, workspace and HCCL take on a card is not known and not counted" in done.stderr
    assert "not counted" not in glm3("plan", "--config", CONFIG, cwd=tmp_path).stderr


def test_plan_prints_a_table_and_fails_where_it_does_not_fit(tmp_path: Path) -> None:
    done = glm3("plan", "--config", CONFIG, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "graph",
        "kv_cache",
        "runtime",
        "total",
        "available",
    ]
    huge = str(Path(CONFIG).with_name("run_glm3_6b_finetune_800T_A2_64G.yaml"))
    done = glm3("plan", "--config", huge, "--json", "use_parallel=False", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["fits"] is False
    assert "pet_config" in done.stderr


def test_plan_refuses_lengths_that_contradict_each_other_as_a_check_does(tmp_path: Path) -> None:
    wrong = "model.model_config.seq_length=100"
    done = glm3("plan", "--config", CONFIG, wrong, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "max_source_length 64 + max_target_length 127 + 1" in done.stderr
    assert done.stderr == glm3("config", "check", CONFIG, wrong, cwd=tmp_path).stderr


def test_an_evaluation_that_could_not_be_written_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    done = glm3("eval", ROWS, "output_dir=taken", cwd=tmp_path, environment=NUMPY)
    assert (done.returncode, done.stdout) == (1, "")
    assert "taken/evaluation.json: cannot be written" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr

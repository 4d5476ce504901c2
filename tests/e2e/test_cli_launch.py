"""``glm3 launch`` with real ranks: train, merge what they saved, answer with the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.msckpt.store import MindSporeCheckpointStore
from glm3.adapters.process.free_port import free_port
from glm3.domain.parameters import to_mindspore_name
from support.cli import REPOSITORY, glm3
from support.finetune import weights_in
from support.launcher import Launched

CONFIG = str(REPOSITORY / "configs/glm3/glm3_tiny.yaml")
SHARED = (
    "use_parallel=True",
    "parallel_config.data_parallel=2",
    "parallel.enable_parallel_optimizer=True",
)
SHORT = ("train_dataset.data_loader.num_samples=16", "runner_config.batch_size=4", "eval_epoch_interval=-1")
PROMPTS = ("你好", "你会什么", "一天有几个小时")


def work(folder: Path, *arguments: str) -> str:
    done = glm3("--offline", *arguments, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_ranks_train_and_what_they_saved_is_merged_and_answers(tmp_path: Path) -> None:
    told = work(
        tmp_path, "launch", "--workers", "2", "finetune", "--config", CONFIG, *SHARED, *SHORT
    ).splitlines()
    assert "[rank 0] trained 2 of 2 steps" in "\n".join(told)
    assert not [line for line in told if "[INFO]" in line], "MindSpore's own talk is filed only"
    output = tmp_path / "output"

    work(tmp_path, "finetune", "--config", CONFIG, *SHARED, "only_save_strategy=True", "output_dir=planned")
    for rank in (0, 1):
        file = f"strategy/ckpt_strategy_rank_{rank}.ckpt"
        assert (output / file).read_bytes() == (tmp_path / "planned" / file).read_bytes()

    merged = work(
        tmp_path, "merge", "--src_ckpt_dir", "output/checkpoint", "--src_ckpt_strategy", "output/strategy",
        "--dst_ckpt_dir", "merged", "--prefix", "tiny", "--weights-only",
    )  # fmt: skip
    assert merged.startswith("2 ranks at epoch 1 step 2 to 1 rank: 38 tensors")
    expected = weights_in(output / "model")
    with MindSporeCheckpointStore().open(tmp_path / "merged/rank_0/tiny0.ckpt") as reader:
        assert set(reader.tensors) == {to_mindspore_name(name) for name in expected}
        for name, array in expected.items():
            np.testing.assert_array_equal(reader.read(to_mindspore_name(name)), array, err_msg=name)

    answers = work(tmp_path, "predict", "-q", "-m", "merged/rank_0/tiny0.ckpt", *PROMPTS).splitlines()
    shared = work(
        tmp_path, "launch", "--workers", "2", "run", "--config", CONFIG, "--run_mode", "predict",
        "--load_checkpoint", "output/checkpoint", "--auto_trans_ckpt", "True",
        "--predict_data", *PROMPTS,
    )  # fmt: skip
    texts = (tmp_path / "text_generation_result.txt").read_text("utf-8")
    assert texts in shared
    assert len(answers) == len(PROMPTS)
    assert all(answer and answer in texts for answer in answers)
    assert f"[rank 0] {texts}" in shared.splitlines()
    assert not [line for line in shared.splitlines() if line.startswith("[rank 1] [")]
    assert (output / "transformed_checkpoint/transform_succeed_rank_0.txt").is_file()


@pytest.mark.slow
def test_two_launchers_started_by_hand_train_as_one_job(tmp_path: Path) -> None:
    """Two machines, as two launchers on the loopback address; their folder is a shared disk."""
    where = ("--workers", "2", "--local-workers", "1", "--master-addr", "127.0.0.1")
    where += ("--master-port", str(free_port()))
    command = ("finetune", "--config", CONFIG, *SHARED, *SHORT)

    def start(node: int) -> Launched:
        logs = ("--log-dir", str(tmp_path / f"machine_{node}"))
        return Launched(tmp_path, *where, "--node-rank", str(node), *logs, *command, GLM3_OFFLINE="1")

    with start(0) as first, start(1) as second:
        (code, told), (other, others) = first.end(), second.end()
    assert (code, other) == (0, 0), told + others
    assert "[rank 0] trained 2 of 2 steps" in told
    assert "start rank 1 of 2" in others
    assert "[rank 0]" not in others
    for rank in (0, 1):
        assert list((tmp_path / f"output/checkpoint/rank_{rank}").glob("*-1_2.ckpt"))
        assert (tmp_path / f"output/strategy/ckpt_strategy_rank_{rank}.ckpt").is_file()
        assert (tmp_path / f"machine_{rank}/rank_{rank}/mindformer.log").is_file()

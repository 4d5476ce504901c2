"""``glm3 merge`` and the model card's ``transform_ckpt.py`` over the slices of ranks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import glm3
from glm3.adapters.safetensors import SafetensorsStore
from glm3.adapters.strategy.store import FileStrategyStore
from glm3.domain.errors import MultipleFaultsError, UsageError
from glm3.domain.layout.network_cut import NetworkCut, cut_network
from glm3.entrypoints.cli.app import run as command_line
from support.cli import REPOSITORY
from support.cli import glm3 as run
from support.model_folder import make_model_folder
from support.rank_checkpoints import network, save_ranks, strategy

pytestmark = pytest.mark.slow


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The output of a run of 8 ranks in two stages."""
    job = strategy(2, 2, 2)
    save_ranks(tmp_path / "output/checkpoint", network(), job, "glm3_rank_{rank}-7_2.ckpt")
    for rank in range(8):
        file = tmp_path / f"output/strategy/ckpt_strategy_rank_{rank}.ckpt"
        FileStrategyStore().write(file, job.stages[rank // 4])
    return tmp_path / "output"


@pytest.mark.parametrize("script", ["transform_ckpt.py", "mindformers/tools/transform_ckpt.py"])
def test_the_model_cards_command_merges_to_the_name_it_promises(output, script):
    arguments = [
        "--src_ckpt_strategy", str(output / "strategy"),
        "--src_ckpt_dir", f"{output / 'checkpoint'}/",
        "--dst_ckpt_strategy", "None",
        "--dst_ckpt_dir", f"{output.parent / 'target'}/",
        "--prefix", "glm3_6b",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    merged = output.parent / "target/rank_0/glm3_6b0.ckpt"
    first, checked, place = done.stdout.splitlines()
    assert first.startswith("8 ranks at epoch 7 step 2 to 1 rank: 75 tensors, ")
    assert checked == "checked: 36 slices against their copies, 0 against stored checksums"
    assert (Path(place), merged.is_file()) == (merged, True)
    again = run(
        "merge", *(word.replace("_ckpt_", "-ckpt-") if word.startswith("--") else word for word in arguments)
    )
    assert again.returncode == 2
    assert "glm3_6b0.ckpt" in again.stderr
    assert "overwrite" in again.stderr


def test_every_rank_at_fault_is_named_and_nothing_is_written(output):
    shutil.rmtree(output / "checkpoint/rank_3")
    (output / "checkpoint/rank_5").rename(output / "checkpoint/rank5")
    target = output.parent / "target"
    done = run(
        "merge", "--src_ckpt_dir", str(output / "checkpoint"), "--dst_ckpt_dir", str(target),
        "--src_ckpt_strategy", str(output / "strategy"),
    )  # fmt: skip
    assert done.returncode != 0
    assert "no folder of rank 3, 5" in done.stderr
    assert "rank5: is not how a rank's folder is named" in done.stderr
    assert [path.name for path in output.parent.iterdir()] == ["output"]
    with pytest.raises(MultipleFaultsError, match="rank 3, 5"):
        glm3.merge_checkpoints(output / "checkpoint", target, src_strategy=output / "strategy")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["adapter", "dst", "--prefix", "x"],
            "ADAPTER, DST is of merging an adapter, --prefix of merging ranks",
        ),
        (["--src_ckpt_dir", "a", "--base", "b"], "--base is of merging an adapter"),
        (["--src_ckpt_dir", "a"], "missing: --dst_ckpt_dir"),
        (["adapter"], "missing: DST"),
        ([], "missing: ADAPTER and DST"),
        (
            ["--src_ckpt_dir", "a", "--dst_ckpt_dir", "b", "--to", "hf"],
            "expected ckpt or safetensors, found hf",
        ),
    ],
)
def test_arguments_of_the_two_merges_are_told_apart(arguments, told, capsys):
    assert command_line(["merge", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_model_is_cut_and_merged_and_computes_and_chats_as_before(tmp_path):
    model, job = make_model_folder(tmp_path / "model"), tmp_path / "strategy.json"
    with SafetensorsStore().open(model) as reader:
        shapes = {name: spec.shape for name, spec in reader.tensors.items() if "inv_freq" not in name}
    how = NetworkCut(data_parallel=2, model_parallel=2, optimizer_parallel=True)
    FileStrategyStore().write_merged(job, cut_network(shapes, how))
    cut = glm3.merge_checkpoints(model, tmp_path / "cut", dst_strategy=job, prefix="m", to="safetensors")
    assert [file.name for file in cut.files] == [f"m{rank}.safetensors" for rank in range(4)]
    for name in ("config.json", "tokenizer.model"):
        shutil.copy(model / name, tmp_path / "cut/rank_0" / name)
    glm3.merge_checkpoints(
        tmp_path / "cut", tmp_path / "merged", src_strategy=job, prefix="glm3_6b", verify=True
    )
    merged = tmp_path / "merged/rank_0"
    ids = np.arange(7)[None]
    expected, found = (glm3.AutoModel.from_pretrained(place).logits(ids) for place in (model, merged))
    np.testing.assert_array_equal(found, expected)
    done = run("chat", "-m", str(merged), "-p", "你好", "--greedy", "--max-new-tokens", "8")
    assert (done.returncode, " 8 tokens" in done.stderr) == (0, True), done.stderr


def test_an_unknown_selection_is_refused(tmp_path):
    with pytest.raises(UsageError, match="all or weights or trainable"):
        glm3.merge_checkpoints(tmp_path, tmp_path / "dst", select="some")

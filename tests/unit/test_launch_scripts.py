"""The arguments of the model card's launch scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm3.domain.errors import UsageError
from glm3.entrypoints.cli.launch_scripts import Script, options_of

ROOT = Path("/checkout")


def test_one_machine():
    options = options_of(Script.distribute, ROOT, ["t.json", "c.yaml", "[0,8]", "finetune"])
    assert (options.rank_table, options.devices, options.workers) == (Path("t.json"), "[0,8]", None)
    assert options.folder == ROOT
    assert options.command == [
        "run", "--config", "c.yaml", "--use_parallel", "True", "--run_mode", "finetune"
    ]  # fmt: skip


def test_several_machines():
    options = options_of(Script.distribute, ROOT, ["t.json", "c.yaml", "[8,16]", "train", "96"])
    assert (options.devices, options.workers) == ("[8,16]", 96)
    assert options.detach  # a loop over machines goes on to the next one
    whole = options_of(Script.distribute, ROOT, ["t.json", "c.yaml", "[0,8]", "train", "8"])
    assert not whole.detach


def test_predict_takes_data_with_and_without_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("你好")
    words = ["t.json", "c.yaml", "[0,8]", "predict"]
    without = options_of(Script.distribute, ROOT, [*words, "你好"])
    assert (without.workers, list(without.command[-2:])) == (None, ["--predict_data", "你好"])
    sized = options_of(Script.distribute, ROOT, [*words, "16", "prompts.txt"])
    assert (sized.workers, sized.command[-1]) == (16, str(tmp_path / "prompts.txt"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["t.json", "c.yaml", "[0,8]"], "number of arguments"),
        (["t.json", "c.yaml", "[0,8]", "predict"], "number of arguments"),
        (["t.json", "c.yaml", "[0,8]", "finetune", "8", "9"], "number of arguments"),
        (["t.json", "c.yaml", "[0,8]", "fly"], "RUN_STATUS: no such run status"),
        (["t.json", "c.yaml", "[0,8]", "finetune", "8*12"], r"RANK_SIZE: not a number.*\n.*\$\(\(8\*12\)\)"),
        (["t.json", "a.yaml", "b.yaml", "[0,8]", "finetune"], "fits several files.*a.yaml, b.yaml"),
    ],
)
def test_wrong_arguments_are_explained(words: list[str], message: str):
    with pytest.raises(UsageError, match=message):
        options_of(Script.distribute, ROOT, words)


def test_a_single_device():
    options = options_of(Script.standalone, ROOT, ["c.yaml", "3", "finetune"])
    assert (options.devices, options.uses_table, options.workers) == ("[3,4]", False, None)
    assert options.command[3:5] == ["--use_parallel", "False"]
    with pytest.raises(UsageError, match="number of arguments"):
        options_of(Script.standalone, ROOT, ["c.yaml", "3"])
    with pytest.raises(UsageError, match="DEVICE_ID"):
        options_of(Script.standalone, ROOT, ["c.yaml", "x", "finetune"])


def test_msrun_with_all_its_forms():
    order = "run_mindformer.py --config 'my c.yaml' --run_mode finetune"
    plain = options_of(Script.msrun, ROOT, [order])
    assert plain.command == ["run_mindformer.py", "--config", "my c.yaml", "--run_mode", "finetune"]
    assert (plain.workers, plain.log_dir) == (8, ROOT / "output" / "msrun_log")
    assert options_of(Script.msrun, ROOT, [order, "4"]).workers == 4
    one = options_of(Script.msrun, ROOT, [order, "4", "8119", "logs", "True", "300"])
    assert (one.master_port, one.log_dir, one.join_timeout) == (8119, Path("logs"), 300)
    several = options_of(
        Script.msrun, ROOT, [order, "16", "8", "10.0.0.1", "8118", "1", "logs", "False", "300"]
    )
    assert (several.workers, several.local_workers, several.node_rank) == (16, 8, 1)
    assert (several.master_addr, several.master_port) == ("10.0.0.1", 8118)
    with pytest.raises(UsageError, match="number of arguments"):
        options_of(Script.msrun, ROOT, [order, "4", "8119"])

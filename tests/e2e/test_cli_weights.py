"""``glm3 convert`` and ``glm3 inspect`` as a user runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import REPOSITORY, glm3

GOLDEN = REPOSITORY / "tests/golden/tiny/hf"
NETWORK = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "padded_vocab_size": 512}


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.ckpt"
    done = glm3("convert", str(GOLDEN), str(path), "--to", "ckpt", "--verify")
    assert done.returncode == 0, done.stderr
    assert "18 tensors" in done.stdout
    assert done.stdout.rstrip().endswith("verified")
    return path


def test_a_round_trip_keeps_every_tensor(ckpt: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    assert glm3("convert", str(ckpt), str(back), "--to", "hf").returncode == 0
    original, returned = (
        json.loads(glm3("inspect", str(folder), "--json").stdout) for folder in (GOLDEN, back)
    )
    assert sorted(returned["tensors"], key=lambda t: t["name"]) == sorted(
        original["tensors"], key=lambda t: t["name"]
    )
    assert returned["parameters"] == original["parameters"] > 0


def test_inspect_tells_the_network_and_whether_the_config_fits(ckpt: Path) -> None:
    done = glm3("inspect", str(GOLDEN))
    assert done.returncode == 0
    assert "transformer.output_layer.weight" in done.stdout
    assert "config.json fits" in done.stdout
    report = json.loads(glm3("inspect", str(ckpt), "--json").stdout)
    assert report["format"] == "ckpt"
    assert report["implied_config"].items() >= NETWORK.items()


def test_inspect_fails_when_the_config_contradicts_the_weights(tmp_path: Path) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(GOLDEN, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_layers": 3, "ffn_hidden_size": 160}))
    done = glm3("inspect", str(folder))
    assert done.returncode == 1
    assert "config.json is wrong: num_layers is 3, the shapes say 2" in done.stdout
    assert "missing: transformer.encoder.layers.2.input_layernorm.weight" in done.stdout
    assert "wrong shape: transformer.encoder.layers.0.mlp.dense_4h_to_h.weight" in done.stdout


def test_the_model_cards_check_files_are_written(tmp_path: Path) -> None:
    done = glm3(
        "convert", str(GOLDEN), str(tmp_path / "x.ckpt"), "--to", "ckpt", "--check-files", str(tmp_path)
    )
    assert done.returncode == 0
    assert "transformer.embedding.word_embeddings.weight" in (tmp_path / "pt_ckpt.txt").read_text()
    assert "transformer.embedding.embedding_table" in (tmp_path / "check_pt_ckpt.txt").read_text()


def test_an_existing_target_is_replaced_only_on_request(tmp_path: Path) -> None:
    target = tmp_path / "x.ckpt"
    target.write_text("mine")
    refused = glm3("convert", str(GOLDEN), str(target), "--to", "ckpt")
    assert (refused.returncode, target.read_text()) == (2, "mine")
    assert glm3("convert", str(GOLDEN), str(target), "--to", "ckpt", "--overwrite").returncode == 0
    assert target.stat().st_size > 600_000


def test_numbers_are_narrowed_on_request(tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    done = glm3("convert", str(GOLDEN), str(target), "--to", "safetensors", "--dtype", "bfloat16")
    assert "float32 to bfloat16" in done.stdout
    dtypes = {t["dtype"] for t in json.loads(glm3("inspect", str(target), "--json").stdout)["tensors"]}
    assert dtypes == {"bfloat16"}


@pytest.mark.parametrize("to", ["ckpt", "hf"])
def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path: Path, to: str) -> None:
    """A limit on the size of files stands for a full disk: writing fails half-way."""
    target = tmp_path / ("x.ckpt" if to == "ckpt" else "x")
    command = f"ulimit -f 200; exec '{sys.executable}' -m glm3 convert '{GOLDEN}' '{target}' --to {to}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def garbage(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.write_bytes(b"\x00garbage\xff" * 40)
    return path


@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt"])
def test_garbage_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    source = garbage(tmp_path, name)
    target = tmp_path / "out" / "y.ckpt"
    done = glm3("convert", str(source), str(target), "--to", "ckpt")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {source}")
    assert "Traceback" not in done.stderr
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


@pytest.mark.parametrize("cut", [4, 100, 100_000, -1])
def test_a_truncated_file_is_refused(ckpt: Path, tmp_path: Path, cut: int) -> None:
    source = tmp_path / "cut.ckpt"
    source.write_bytes(ckpt.read_bytes()[:cut])
    done = glm3("inspect", str(source))
    assert done.returncode == 1
    assert str(source) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "target", "to", "code", "message"),
    [
        ("absent", "y.ckpt", "ckpt", 1, "no such file or folder"),
        ("empty", "y.ckpt", "ckpt", 1, "no checkpoint of a known format"),
        ("golden", "y.txt", "ckpt", 2, ".ckpt"),
        ("golden", "y.ckpt", "hf", 2, "folder"),
        ("golden", "y.ckpt", "onnx", 2, "'onnx' is not one of"),
        ("golden", "/sys/glm3-test/y.ckpt", "ckpt", 1, "/sys/glm3-test"),
    ],
)
def test_wrong_arguments_are_explained(
    tmp_path: Path, source: str, target: str, to: str, code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    start = str(GOLDEN) if source == "golden" else source
    done = glm3("convert", start, target, "--to", to, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_models_name_is_as_good_as_its_folder(tmp_path: Path) -> None:
    done = glm3("convert", "tiny", "tiny.ckpt", "--to", "ckpt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tiny.ckpt").is_file()
    assert "transformer.embedding.word_embeddings.weight" in glm3("inspect", "tiny", cwd=tmp_path).stdout
    (tmp_path / "tiny").mkdir()
    hidden = glm3("inspect", "tiny", cwd=tmp_path)
    assert "no checkpoint of a known format" in hidden.stderr, "a folder of this name comes first"

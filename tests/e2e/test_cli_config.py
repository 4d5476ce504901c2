"""``glm3 config`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import REPOSITORY, glm3

CONFIGS = sorted((REPOSITORY / "configs/glm3").glob("*.yaml"))
TINY = REPOSITORY / "configs/glm3/glm3_tiny.yaml"


def test_the_embedded_models_file_is_fit() -> None:
    done = glm3("config", "check", str(TINY))
    assert (done.returncode, done.stdout) == (0, f"{TINY}: fit for run mode finetune\n")


def test_every_fault_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("seed: x\nrunner_config:\n  epoch: 3\n  batch_size: 0\n")
    done = glm3("config", "check", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    for place, what in ((1, "seed"), (3, "runner_config.epoch"), (4, "runner_config.batch_size")):
        assert f"{path}:{place}: {what}" in done.stderr
    assert "did you mean" in done.stderr


def test_what_another_mode_needs_is_found_in_advance() -> None:
    """The model card's predict file has fill-me-in paths that only training would meet."""
    path = REPOSITORY / "configs/glm3/predict_glm3_6b.yaml"
    assert glm3("config", "check", str(path)).returncode == 0
    done = glm3("config", "check", str(path), "--run-mode", "finetune")
    assert done.returncode == 2
    assert "dataset_dir" in done.stderr


def test_an_unknown_mode_and_an_unknown_key_are_explained() -> None:
    assert "finetune" in glm3("config", "check", str(TINY), "--run-mode", "tune").stderr
    done = glm3("config", "check", str(TINY), "sed=3")
    assert done.returncode == 2
    assert "did you mean seed?" in done.stderr


def test_show_tells_values_and_where_they_come_from() -> None:
    done = glm3("config", "show", str(TINY), "runner_config.batch_size=2")
    lines = done.stdout.splitlines()
    assert "runner_config.batch_size=2  # command line" in lines
    assert any(line.startswith('run_mode="finetune"  # line ') for line in lines)
    assert 'load_checkpoint="tiny"' in done.stdout
    assert 'callbacks.0.type="MFLossMonitor"' in done.stdout


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_is_shown_reads_back_as_the_same_run(path: Path, tmp_path: Path) -> None:
    """Every printed line is an override; applied to the file itself, nothing changes."""
    shown = glm3("config", "show", str(path)).stdout
    overrides = [
        line.rpartition("  # ")[0]
        for line in shown.splitlines()
        if not line.endswith(("# default", "# default, or the checkpoint's own"))
    ]
    assert len(overrides) > 30
    first = json.loads(glm3("config", "show", str(path), "--json").stdout)
    second = json.loads(glm3("config", "show", str(path), "--json", *overrides).stdout)
    assert first == second


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"a: [1", "not valid YAML"),
        (b"\xff\xfe", "text"),
        (b"!!python/object:os.x {}", "tag"),
    ],
)
def test_garbage_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    done = glm3("config", "check", str(path))
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    done = glm3("config", "check", "absent.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "absent.yaml" in done.stderr

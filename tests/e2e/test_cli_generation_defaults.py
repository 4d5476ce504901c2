"""``glm3 chat`` and ``glm3 run`` on a folder with a ``generation_config.json``."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import glm3
from support.model_folder import make_model_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("models") / "random")


def write(model: Path, text: str | None) -> None:
    file = model / "generation_config.json"
    file.unlink(missing_ok=True)
    if text is not None:
        file.write_text(text)


def chat(model: Path, text: str | None, *options: str) -> tuple[int, str, str]:
    write(model, text)
    arguments = ("chat", "-m", str(model), "-p", "你好", "--json", *options)
    done = glm3(*arguments, environment={"GLM3_BACKEND": "numpy"})
    return done.returncode, done.stdout, done.stderr


def answer(model: Path, text: str | None, *options: str) -> str:
    code, out, errors = chat(model, text, *options)
    assert code == 0, errors
    return out.split('"timings"')[0]


@pytest.mark.slow
def test_the_folder_decides_and_options_stand_above_it(model: Path) -> None:
    greedy = answer(model, None, "--max-new-tokens", "6", "--greedy")
    assert answer(model, '{"do_sample": false, "max_new_tokens": 6}') == greedy
    sampled = answer(model, None, "--max-new-tokens", "6", "--seed", "3")
    assert sampled != greedy
    assert answer(model, '{"do_sample": false, "max_length": 9}', "--max-new-tokens", "6", "--seed", "3") == (
        sampled
    )


def run(model: Path, text: str | None, cwd: Path, *keys: str) -> tuple[int, str, str]:
    """Run a file that says nothing of generation beyond ``keys``."""
    write(model, text)
    (cwd / "run.yaml").write_text(f"run_mode: predict\nload_checkpoint: {model}\n")
    arguments = ("run", "--config", "run.yaml", "--predict_data", "你好", "--seed", "3", *keys)
    done = glm3(*arguments, environment={"GLM3_BACKEND": "numpy"}, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def run_answer(model: Path, text: str | None, cwd: Path, *keys: str) -> str:
    code, out, errors = run(model, text, cwd, *keys)
    assert code == 0, errors
    return out


@pytest.mark.slow
def test_a_runs_file_stands_above_the_folders(model: Path, tmp_path: Path) -> None:
    key = "--model.model_config."
    short = f"{key}max_length=16"
    greedy = run_answer(model, None, tmp_path, short)
    sampling = '{"do_sample": true, "temperature": 1.5, "max_new_tokens": 2}'
    assert run_answer(model, sampling, tmp_path, short) != greedy
    assert run_answer(model, sampling, tmp_path, short, f"{key}do_sample=False") == greedy
    assert len(run_answer(model, '{"max_new_tokens": 2}', tmp_path)) < len(greedy)


def test_a_bad_value_ends_a_run(model: Path, tmp_path: Path) -> None:
    code, out, errors = run(model, '{"top_k": -1}', tmp_path)
    assert (code, out) == (2, "")
    assert "generation_config.json" in errors
    assert "top_k" in errors


def test_a_bad_value_ends_the_command_with_path_and_field(model: Path) -> None:
    code, _, errors = chat(model, '{"top_p": 3}')
    assert code == 2
    assert "generation_config.json" in errors
    assert "top_p" in errors
    assert "Traceback" not in errors

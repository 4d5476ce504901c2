"""``glm3 chat`` on a folder with a ``generation_config.json``."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import glm3
from support.model_folder import make_model_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("models") / "random")


def chat(model: Path, text: str | None, *options: str) -> tuple[int, str, str]:
    file = model / "generation_config.json"
    file.unlink(missing_ok=True)
    if text is not None:
        file.write_text(text)
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


def test_a_bad_value_ends_the_command_with_path_and_field(model: Path) -> None:
    code, _, errors = chat(model, '{"top_p": 3}')
    assert code == 2
    assert "generation_config.json" in errors
    assert "top_p" in errors
    assert "Traceback" not in errors

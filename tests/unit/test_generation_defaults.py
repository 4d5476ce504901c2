from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.application.generation_file import generation_beside
from glm3.domain.errors import ConfigError, MultipleFaultsError
from glm3.domain.generation import GenerationConfig
from glm3.domain.generation_defaults import GenerationDefaults
from glm3.domain.model_config import ModelConfig
from glm3.entrypoints.cli.options import sampling_options

SPECIAL = ByteTokenizer().special_tokens
UNNAMED: dict[str, Any] = dict.fromkeys(
    ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed")
)


def chosen(defaults: GenerationDefaults, **flags: Any) -> GenerationConfig:
    options, named = sampling_options(**{**UNNAMED, "greedy": False, "lookup": True, **flags})
    return defaults.chat_options(SPECIAL, options, named)


def written(folder: Path, text: str) -> Path:
    (folder / "generation_config.json").write_text(text)
    return folder


def test_without_the_file_a_chat_samples_as_the_official_one(tmp_path: Path) -> None:
    options = chosen(generation_beside(tmp_path))
    assert (options.do_sample, options.temperature, options.top_p, options.top_k) == (True, 0.8, 0.8, 0)
    assert options.repetition_penalty == 1.0
    assert options.stop_ids == set(SPECIAL.stop_ids)
    assert options.max_new_tokens is None
    assert options.max_length is None
    assert generation_beside(None) == GenerationDefaults()


def test_the_file_beside_a_file_of_weights_decides_what_it_names(tmp_path: Path) -> None:
    written(tmp_path, '{"temperature": 0.5, "top_k": 7, "max_new_tokens": 9, "eos_token_id": [2, 77]}')
    (tmp_path / "model.ckpt").touch()
    options = chosen(generation_beside(tmp_path / "model.ckpt"))
    assert (options.temperature, options.top_k, options.max_new_tokens) == (0.5, 7, 9)
    assert options.top_p == 0.8
    assert options.stop_ids == {*SPECIAL.stop_ids, 2, 77}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"temperature": 0.9}, {"temperature": 0.9, "do_sample": True, "top_p": 0.3}),
        ({"seed": 4}, {"seed": 4, "do_sample": True}),
        ({"top_k": 0}, {"top_k": 0, "top_p": 0.3}),
        ({"repetition_penalty": 1.0}, {"repetition_penalty": 1.0, "do_sample": False}),
        ({"max_new_tokens": 3}, {"max_new_tokens": 3, "max_length": None, "do_sample": False}),
        ({}, {"max_length": 50, "max_new_tokens": None, "repetition_penalty": 1.3, "do_sample": False}),
    ],
)
def test_the_command_line_stands_above_the_file(flags: dict[str, Any], expected: dict[str, Any]) -> None:
    """An option that shapes sampling asks for it, even of a folder that says greedy."""
    folder = GenerationDefaults(
        do_sample=False, temperature=0.5, top_p=0.3, top_k=7, repetition_penalty=1.3, max_length=50
    )
    options = chosen(folder, **flags)
    assert {name: getattr(options, name) for name in expected} == expected


def test_greedy_on_the_command_line_holds_against_a_sampling_folder() -> None:
    assert not chosen(GenerationDefaults(do_sample=True), greedy=True).do_sample


def test_null_says_nothing_and_unused_fields_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = {"top_k": None, "transformers_version": "4.40.0", "typical_p": 0.4}
    with caplog.at_level(logging.DEBUG):
        assert generation_beside(written(tmp_path, json.dumps(values))) == GenerationDefaults()
    assert "transformers_version, typical_p" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("do_sample", "perhaps"),
        ("temperature", 0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("repetition_penalty", [1]),
        ("max_length", 0),
        ("max_new_tokens", 2.5),
        ("eos_token_id", [-2]),
        ("eos_token_id", ["end"]),
    ],
)
def test_a_bad_value_is_named_with_its_file(tmp_path: Path, name: str, value: object) -> None:
    written(tmp_path, json.dumps({name: value}))
    with pytest.raises(ConfigError) as caught:
        generation_beside(tmp_path)
    assert caught.value.path == tmp_path / "generation_config.json"
    assert caught.value.field == name
    assert caught.value.expected
    assert caught.value.found == repr(value)


def test_all_faults_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(MultipleFaultsError, match=r"(?s)temperature.*top_p"):
        generation_beside(written(tmp_path, '{"temperature": -1, "top_p": 2}'))


@pytest.mark.parametrize("text", ["{", "[]", "\x00", "[" * 100_000])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        generation_beside(written(tmp_path, text))
    assert caught.value.path == tmp_path / "generation_config.json"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"do_sample": True, "temperature": 0.5, "top_k": 7, "top_p": 0.9, "max_new_tokens": 9}),
        ({"do_sample": False}, {"do_sample": False, "temperature": 0.5}),
        ({"temperature": 1.0, "top_k": 0}, {"temperature": 1.0, "top_k": 0, "do_sample": True}),
        ({"max_length": 40}, {"max_length": 40, "max_new_tokens": None}),
        ({"max_decode_length": 30}, {"max_length": 30, "max_new_tokens": None}),
        ({"eos_token_id": (5,)}, {"stop_ids": {5, *SPECIAL.stop_ids}}),
        ({"seq_length": 64}, {"stop_ids": {77, *SPECIAL.stop_ids}, "repetition_penalty": 1.0}),
    ],
)
def test_a_runs_file_stands_above_the_folders(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """What neither says is the network's own, here ``top_p`` 0.9; not that of a chat."""
    folder = GenerationDefaults(
        do_sample=True, temperature=0.5, top_k=7, max_new_tokens=9, max_length=50, eos_token_id=77
    )
    network = ModelConfig(top_p=0.9).evolve(**given)
    options = folder.run_options(network, given, SPECIAL, seed=3)
    assert {name: getattr(options, name) for name in expected} == expected
    assert options.seed == 3


def test_without_the_file_a_run_is_as_its_own_file_says() -> None:
    options = GenerationDefaults().run_options(ModelConfig(max_decode_length=30), (), SPECIAL, seed=0)
    assert (options.do_sample, options.temperature, options.top_p, options.max_length) == (
        False,
        1.0,
        1.0,
        30,
    )

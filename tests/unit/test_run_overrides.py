"""Overrides of single keys on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.domain.errors import MultipleFaultsError, UsageError
from glm3.domain.run_config import RunConfig
from glm3.domain.run_config.overrides import parse_overrides, parse_value

PREDICT = Path(__file__).parents[2] / "configs" / "glm3" / "predict_glm3_6b.yaml"


def read(*overrides: str) -> RunConfig:
    return YamlRunConfigReader().read(PREDICT, overrides)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("1.0", 1.0),
        ("1e3", 1000.0),
        ("1.e-4", 1e-4),
        (".5", 0.5),
        ("-2E+2", -200.0),
        ("True", True),
        ("false", False),
        ("None", None),
        ("none", None),
        ("null", None),
        ("~", None),
        ("", ""),
        ("[1, 2]", [1, 2]),
        ('["content", "summary"]', ["content", "summary"]),
        ('{"a": null}', {"a": None}),
        ('"1"', "1"),
        ("[gMASK]sop<|user|> \n 你好", "[gMASK]sop<|user|> \n 你好"),
        ("float16", "float16"),
        ("./output", "./output"),
        ("e5", "e5"),
        ("1_0", "1_0"),
        ("1.2.3", "1.2.3"),
        ("nan", "nan"),
    ],
)
def test_a_value_is_what_yaml_and_json_take_it_for(text: str, value: Any) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


json_values = st.recursive(
    st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=json_values | st.text().map(lambda text: [text]))
def test_json_comes_back_as_it_was(value: Any) -> None:
    assert parse_value(json.dumps(value)) == value


@given(text=st.text())
def test_any_text_is_some_value(text: str) -> None:
    parse_value(text)


@pytest.mark.parametrize(
    "words",
    [
        ["runner_config.epochs=3"],
        ["--runner_config.epochs=3"],
        ["--runner_config.epochs", "3"],
        ["runner_config.epochs=2", "--runner_config.epochs", "3"],
        ['runner_config={"epochs": 3}'],
    ],
)
def test_the_three_spellings_mean_the_same_and_the_last_wins(words: list[str]) -> None:
    config = read(*words)
    assert config.runner_config.epochs == 3
    assert config.runner_config.batch_size == 8


def test_a_value_may_hold_an_equals_sign_and_be_negative() -> None:
    config = read("--input_data=--a=b", "--runner_config.sink_size", "-1")
    assert config.input_data == ("--a=b",)
    assert config.runner_config.sink_size == -1


@pytest.mark.parametrize("words", [["epochs"], ["--a.b"], ["--a.b", "--c=1"], ["a..b=1"], ["=1"], ["--"]])
def test_words_that_are_no_override_are_told(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_overrides(words)
    assert caught.value.expected == "key=value, --key=value or --key value"


def test_entries_of_lists_are_counted_from_0() -> None:
    config = read("callbacks.1.save_checkpoint_steps=10", 'callbacks.0={"type": "ObsMonitor"}')
    assert config.callbacks[1].save_checkpoint_steps == 10
    assert config.callbacks[1].prefix == "glm3-6b"
    assert config.callbacks[0].type == "ObsMonitor"


def test_an_override_of_an_aliased_part_shows_in_both_places() -> None:
    config = read("train_dataset_task.dataset_config.batch_size=5")
    assert config.train_dataset is not None
    assert config.train_dataset.batch_size == 5


def test_sections_that_the_file_leaves_out_are_made(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("seed: 1\nmodel:\n")
    config = YamlRunConfigReader().read(
        tmp_path / "run.yaml",
        ["eval_dataset.data_loader.dataset_dir=rows.json", "model.model_config.num_layers=2"],
    )
    assert config.eval_dataset is not None
    assert config.eval_dataset.data_loader.dataset_dir == "rows.json"
    assert config.model.given == {"num_layers": 2}


def test_null_takes_a_section_or_value_away() -> None:
    config = read("eval_dataset=null", "model.model_config.checkpoint_name_or_path=None")
    assert config.eval_dataset is None
    assert config.model.model_config.checkpoint_name_or_path is None


@pytest.mark.parametrize(
    ("word", "field", "message", "hint"),
    [
        ("optimizer.betta1=1", "optimizer.betta1", "unknown key", "did you mean beta1?"),
        ("contxt.mode=1", "contxt", "unknown key", "did you mean context?"),
        ("seed.x=1", "seed.x", "no such entry", None),
        ("callbacks.3.type=ObsMonitor", "callbacks.3", "no such entry", None),
        ("callbacks.x=1", "callbacks.x", "no such entry", None),
        ("seed=x", "seed", "invalid value", None),
        (
            "train_dataset.input_columns=['a']",
            "train_dataset.input_columns",
            "invalid value",
            "on the command line a list is written as JSON",
        ),
    ],
)
def test_a_fault_names_the_override(word: str, field: str, message: str, hint: str | None) -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        read(word)
    fault = caught.value.faults[0]
    assert isinstance(fault.field, str)
    assert (fault.field, fault.hint, fault.path) == (field, hint, None)
    assert fault.message == f"{message} in the override {word}"

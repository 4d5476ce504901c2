"""The flags of the model card's command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import UsageError
from glm3.entrypoints.cli.run_flags import FLAGS, overrides_of, spread

WORDS = st.text(min_size=1).filter(lambda text: not text.startswith("-"))


MODEL_CARD = """
mode device_id device_target do_eval train_dataset_dir eval_dataset_dir load_checkpoint
src_strategy_path_or_dir auto_trans_ckpt only_save_strategy resume_training strategy_load_checkpoint
remote_save_url seed use_parallel profile epochs batch_size gradient_accumulation_steps sink_mode
num_samples output_dir run_mode predict_batch_size
"""  # config, predict_data and options are parameters of their own


def test_every_flag_of_the_model_cards_program_is_there() -> None:
    assert sorted(flag.name for flag in FLAGS) == sorted(MODEL_CARD.split())


@pytest.mark.parametrize(
    ("text", "value"), [("False", "False"), ("false", "False"), ("TRUE", "True"), ("true", "True")]
)
def test_truth_values_are_read_in_any_letter_case(text: str, value: str) -> None:
    assert overrides_of({"use_parallel": text, "seed": None}) == [f"use_parallel={value}"]


@pytest.mark.parametrize("text", ["yes", "1", ""])
def test_anything_else_is_no_truth_value(text: str) -> None:
    with pytest.raises(UsageError, match="--use_parallel"):
        overrides_of({"use_parallel": text})


def test_flags_become_keys() -> None:
    assert overrides_of({"batch_size": 2, "device_target": "CPU", "load_checkpoint": "a b"}) == [
        "load_checkpoint=a b",
        "context.device_target=CPU",
        "runner_config.batch_size=2",
    ]


@given(st.lists(WORDS, min_size=1))
def test_many_words_behind_a_flag_become_many_flags(words: list[str]) -> None:
    result = spread(["--predict_data", *words, "--seed", "1"])
    assert result[-2:] == ["--seed", "1"]
    assert result[0:-2:2] == ["--predict_data"] * len(words)
    assert result[1:-2:2] == words


@given(st.lists(st.sampled_from(["--a=1", "--b", "c", "--seed", "3"])))
def test_other_words_are_left_alone(words: list[str]) -> None:
    assert spread(words) == words

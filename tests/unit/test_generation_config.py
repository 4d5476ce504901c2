from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from glm3.domain.conversation import FinishReason, Usage
from glm3.domain.errors import InvalidInputError
from glm3.domain.generation import Generation, GenerationConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 2.5),
        ("max_length", -1),
        ("min_new_tokens", -1),
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("num_beams", 0),
        ("num_beams", True),
        ("length_penalty", float("nan")),
        ("length_penalty", 1000.0),
        ("early_stopping", "always"),
        ("early_stopping", 1),
        ("stop_ids", [-1]),
        ("stop_strings", ["", "x"]),
        ("seed", -1),
        ("seed", 1.0),
        ("vocab_size", 0),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        GenerationConfig(**{name: value})
    assert caught.value.field == name
    assert caught.value.expected


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 2, "do_sample": True},
        {"num_beams": 2, "stop_strings": ("x",)},
        {"min_new_tokens": 5, "max_new_tokens": 4},
    ],
)
def test_values_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        GenerationConfig(**options)


def test_one_stop_id_or_text_may_stand_alone() -> None:
    """A bare text must not be taken apart into its characters."""
    options = GenerationConfig(stop_ids=np.int64(2), stop_strings="END")
    assert options.stop_ids == {2}
    assert options.stop_strings == ("END",)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 90),
        ({"max_length": 30}, 20),
        ({"max_length": 1000}, 90),
        ({"max_length": 5}, -5),
        ({"max_new_tokens": 7}, 7),
        ({"max_new_tokens": 7, "max_length": 12}, 7),
        ({"max_new_tokens": 200}, 90),
    ],
)
def test_max_length_counts_the_prompt_and_max_new_tokens_does_not(
    limits: dict[str, int], expected: int
) -> None:
    assert GenerationConfig(**limits).new_token_limit(10, 100) == expected


def test_a_generation_counts_its_tokens() -> None:
    generation = Generation([5, 6, 7, 8], 3, FinishReason.STOP)
    assert generation.new_ids == (8,)
    assert generation.usage == Usage(prompt_tokens=3, completion_tokens=1)

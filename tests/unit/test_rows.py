"""Rows are checked field by field, and what is wrong is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.domain.errors import InvalidInputError
from glm3.domain.training.encoding import DialogueEncoder
from glm3.domain.training.rows import PairRow, parse_dialogue, parse_pair

COLUMNS = ("content", "summary")
USER = {"role": "user", "content": "u"}
ASSISTANT = {"role": "assistant", "content": "a"}
TOOL = {"role": "tool", "name": "f", "parameters": {"k": 1}, "observation": "o"}


def test_a_pair_is_read_by_its_columns() -> None:
    assert parse_pair({"q": "x", "a": "y", "more": 1}, ("q", "a")) == PairRow("x", "y")


@pytest.mark.parametrize(
    ("row", "field", "found"),
    [
        ({"content": "x"}, "summary", "the fields content"),
        ({}, "content", "the fields none"),
        ({"content": " \n", "summary": "y"}, "content", "' \\n'"),
        ({"content": "x", "summary": None}, "summary", "None"),
        ({"content": 5, "summary": "y"}, "content", "5"),
        ({"content": "x", "summary": "\ud800"}, "summary", "ud800"),
        (["x", "y"], "the row", "['x', 'y']"),
        (None, "the row", "None"),
    ],
)
def test_what_is_wrong_with_a_pair_is_named(row: object, field: str, found: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_pair(row, COLUMNS)
    assert caught.value.field == field
    assert found in str(caught.value.found)


def turns(*items: Any, **more: Any) -> dict[str, Any]:
    return {"conversations": list(items), **more}


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({}, "conversations"),
        (turns(), "conversations"),
        ({"conversations": {}}, "conversations"),
        (turns(USER, ASSISTANT, tools={}), "tools"),
        (turns(USER, 5), "conversations[1]"),
        (turns({"role": "bot", "content": "x"}), "conversations[0].role"),
        (turns(USER, {"role": "assistant"}), "conversations[1].content"),
        (turns(USER, ASSISTANT | {"content": ""}), "conversations[1].content"),
        (turns(USER, ASSISTANT | {"loss": 1}), "conversations[1].loss"),
        (turns(USER, {"role": "system", "content": "x"}, ASSISTANT), "conversations[1].role"),
        (turns(TOOL, ASSISTANT), "conversations[0].role"),
        (turns(USER, TOOL | {"parameters": "{}"}), "conversations[1].parameters"),
        (turns(USER, TOOL | {"parameters": {"not a name": 1}}), "conversations[1].parameters"),
        (turns(USER, TOOL | {"name": ""}), "conversations[1].name"),
        (turns(USER, TOOL | {"name": "f\n"}), "conversations[1].name"),
        (turns(USER, TOOL | {"observation": " "}), "conversations[1].observation"),
        (turns(USER), "conversations"),
        (turns(USER, ASSISTANT | {"loss": False}), "conversations"),
    ],
)
def test_what_is_wrong_with_a_conversation_is_named(row: object, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_dialogue(row)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "row",
    [
        turns(USER, ASSISTANT),
        turns({"role": "system", "content": ""}, USER, ASSISTANT),
        turns(USER, ASSISTANT, TOOL, ASSISTANT, tools=["t"]),
        turns(USER, TOOL, TOOL, ASSISTANT, tools=[{"name": "f"}]),
        turns(USER, ASSISTANT | {"loss": False}, USER, ASSISTANT),
        turns(USER, TOOL | {"observation": {"a": 1}}, ASSISTANT),
    ],
)
def test_plain_and_tool_conversations_are_accepted_and_can_be_encoded(row: object) -> None:
    assert DialogueEncoder(ByteTokenizer(), 300).encode(parse_dialogue(row)).learns


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)
loose_turns = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["system", "user", "assistant", "tool", "bot"]) | json_values,
        "content": st.text(max_size=3) | json_values,
        "name": st.just("f") | json_values,
        "parameters": json_values,
        "observation": json_values,
        "loss": json_values,
    },
)


@given(st.lists(loose_turns | json_values, max_size=4), json_values)
def test_any_json_is_a_conversation_that_can_be_encoded_or_a_named_fault(items: Any, tools: Any) -> None:
    row = json.loads(json.dumps({"conversations": items, "tools": tools}))
    fault = None
    try:
        assert DialogueEncoder(ByteTokenizer(), 50).encode(parse_dialogue(row)).wanted > 2
    except InvalidInputError as error:
        fault = error
    assert fault is None or fault.field

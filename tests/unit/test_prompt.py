from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.domain.conversation import Message, Role
from glm3.domain.errors import ConversationError, InvalidInputError
from glm3.domain.prompt import PromptBuilder, messages_from_history, pad_batch

TOKENIZER = ByteTokenizer()
SPECIAL = TOKENIZER.special_tokens
BUILDER = PromptBuilder(TOKENIZER)
TOOLS = [{"name": "查询", "parameters": {"city": "text"}}]


def test_a_message_is_its_marker_its_header_line_and_its_content():
    ids = BUILDER.message_ids(Message(Role.ASSISTANT, "内容", "name"))
    assert ids == [SPECIAL.assistant, *TOKENIZER.encode("name\n"), *TOKENIZER.encode("内容")]


def test_header_and_content_are_encoded_apart():
    """Each has a dummy space of its own."""
    tokenizer = ByteTokenizer(dummy_prefix=True)
    ids = PromptBuilder(tokenizer).message_ids(Message(Role.USER, "x"))
    assert tokenizer.decode(ids) == "<|user|> \n x"


def test_a_prompt_starts_with_the_prefix_and_ends_where_the_assistant_answers():
    ids = BUILDER.build([Message(Role.SYSTEM, "s"), Message(Role.USER, "u")])
    assert TOKENIZER.decode(ids) == "[gMASK]sop<|system|>\ns<|user|>\nu<|assistant|>"
    assert ids[:2] == list(SPECIAL.prefix)
    assert ids[-1] == SPECIAL.assistant


def test_tools_follow_the_system_text_as_indented_json():
    ids = BUILDER.message_ids(Message(Role.SYSTEM, "s", tools=TOOLS))
    expected = json.dumps(TOOLS, indent=4, ensure_ascii=False)
    assert TOKENIZER.decode(ids) == f"<|system|>\ns\n{expected}"


def test_an_empty_dialogue_and_a_misplaced_role_are_refused():
    with pytest.raises(ConversationError, match="nothing to answer"):
        BUILDER.build([])
    with pytest.raises(ConversationError, match="must come first"):
        BUILDER.build([Message(Role.USER, "u"), Message(Role.SYSTEM, "s")])


def test_the_history_of_the_model_card_builds_the_same_prompt_and_is_left_alone():
    history = [
        {"role": "system", "content": "s", "tools": TOOLS},
        {"role": "user", "content": "u"},
        {"role": "assistant", "metadata": "查询", "content": "c"},
    ]
    before = json.dumps(history)
    messages = [
        Message(Role.SYSTEM, "s", tools=TOOLS),
        Message(Role.USER, "u"),
        Message(Role.ASSISTANT, "c", "查询"),
        Message(Role.OBSERVATION, "o"),
    ]
    assert BUILDER.build_chat_input("o", history, "observation") == BUILDER.build(messages)
    assert json.dumps(history) == before


@pytest.mark.parametrize("tools", [None, [], ()])
def test_no_tools_are_no_tools(tools):
    assert messages_from_history([{"role": "system", "content": "s", "tools": tools}]) == [
        Message(Role.SYSTEM, "s")
    ]


@pytest.mark.parametrize(
    ("item", "field", "text"),
    [
        ({"role": "tool", "content": "x"}, "role", "unknown role"),
        ({"content": "x"}, "role", "missing"),
        ({"role": "user"}, "content", "missing"),
        ({"role": "user", "content": None}, "content", "not text"),
        ({"role": "user", "content": 3}, "content", "not text"),
        ({"role": "assistant", "content": {"name": "f", "parameters": {}}}, "content", "parsed form of a"),
        ({"role": "assistant", "content": "x", "metadata": None}, "metadata", "not text"),
        ({"role": "assistant", "content": "x", "metadata": "a\nb"}, "metadata", "one line"),
        ({"role": "system", "content": "x", "tools": {"name": "f"}}, "tools", "not a list"),
        ({"role": "system", "content": "x", "tools": [{1, 2}]}, "tools", "not JSON"),
        ({"role": "assistant", "content": None, "function_call": {"name": "f"}}, "function_call", "call"),
        ({"role": "assistant", "content": "x", "tool_calls": [{}]}, "tool_calls", "call"),
    ],
)  # fmt: skip
def test_a_malformed_item_is_named_with_its_key(item, field, text):
    with pytest.raises(ConversationError) as caught:
        messages_from_history([{"role": "user", "content": "fine"}, item])
    assert caught.value.field == f"history[1].{field}"
    assert text in str(caught.value)


@pytest.mark.parametrize("history", ["text", {"role": "user", "content": "x"}, 3])
def test_what_is_no_list_is_no_history(history):
    with pytest.raises(ConversationError, match="not a history"):
        messages_from_history(history)


def test_an_item_that_is_no_mapping_is_named():
    with pytest.raises(ConversationError, match=r"history\[0\]"):
        messages_from_history(["text"])


@given(rows=st.lists(st.lists(st.integers(1, 99), max_size=6), min_size=1, max_size=4))
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_keeps_rows_and_counts_from_their_first_token(rows, side):
    input_ids, mask, positions = pad_batch(rows, side)
    assert input_ids.shape == mask.shape == positions.shape == (len(rows), max(map(len, rows)))
    for index, row in enumerate(rows):
        real = mask[index].astype(bool)
        assert input_ids[index][real].tolist() == row
        assert positions[index][real].tolist() == list(range(len(row)))
        assert not input_ids[index][~real].any()
        assert not positions[index][~real].any()
        edge = mask[index] if side == "right" else mask[index][::-1]
        assert edge.tolist() == sorted(edge, reverse=True)
    assert input_ids.dtype == np.int64


def test_padding_nothing_or_to_no_side_is_refused():
    with pytest.raises(InvalidInputError):
        pad_batch([])
    with pytest.raises(InvalidInputError, match="middle"):
        pad_batch([[1]], "middle")

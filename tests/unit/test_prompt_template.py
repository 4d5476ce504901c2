from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.conversation import Message, Role
from glm3.domain.errors import ConversationError
from glm3.domain.prompt import PromptBuilder
from glm3.domain.template import is_template, parse_prompt
from support.tokenizers import BUILDERS, EVERY_TOKENIZER

USER = Message(Role.USER, "你好")


@pytest.mark.parametrize(
    "text",
    [
        "[gMASK]sop<|user|> \n 你好<|assistant|> \n",
        "[gMASK]sop<|user|> \\n 你好<|assistant|> \\n",
        "[gMASK]sop<|user|> \n 你好<|assistant|>",
        "[gMASK]sop<|user|> \n 你好",
        "[gMASK]sop<|user|>\n你好\n<|assistant|>\n",
        "[gMASK]sop<|user|>你好<|assistant|>",
        "  [gMASK]sop<|user|>\n你好<|assistant|>",
    ],
)
def test_the_ways_a_prompt_is_written_out_mean_the_same(text):
    assert is_template(text)
    assert parse_prompt(text) == [USER]


@pytest.mark.parametrize(
    "text", ["你好", "", "sop<|user|> \n 你好", "say [gMASK]sop<|user|> \n 你好", "[gMASK]sop你好"]
)
def test_other_text_is_one_user_message_as_it_stands(text):
    assert not is_template(text)
    assert parse_prompt(text) == [Message(Role.USER, text)]


def test_a_whole_dialogue_with_a_call():
    call = "```python\ntool_call(a='x')\n```"
    text = "[gMASK]sop<|system|> \n s<|user|> \n u"
    text += f"<|assistant|> name\n {call}<|observation|> \n o<|assistant|> \n"
    assert parse_prompt(text) == [
        Message(Role.SYSTEM, "s"),
        Message(Role.USER, "u"),
        Message(Role.ASSISTANT, call, "name"),
        Message(Role.OBSERVATION, "o"),
    ]


def test_without_a_header_line_all_lines_are_content():
    assert parse_prompt("[gMASK]sop<|user|>first\nsecond") == [Message(Role.USER, "first\nsecond")]


def test_a_backslash_and_n_stay_where_there_are_real_line_breaks():
    assert parse_prompt("[gMASK]sop<|user|>\nprint('\\n')<|assistant|>\n") == [
        Message(Role.USER, "print('\\n')")
    ]


def test_an_unknown_marker_is_content_further_on_and_an_error_in_front():
    assert parse_prompt("[gMASK]sop<|user|>\na<|robot|>b") == [Message(Role.USER, "a<|robot|>b")]
    with pytest.raises(ConversationError, match=r"<\|robot\|>"):
        parse_prompt("[gMASK]sop<|robot|>\nhello")


def test_a_prompt_without_messages_is_refused():
    with pytest.raises(ConversationError, match="no message"):
        parse_prompt("[gMASK]sop<|assistant|> \n")


@pytest.mark.parametrize("name", [name for name in EVERY_TOKENIZER if name.values != ("bytes",)])
@given(contents=st.lists(st.text("ab你1.<| \t").filter(lambda t: t == t.strip()), min_size=1, max_size=3))
def test_what_a_prompt_decodes_to_is_read_as_the_prompt_itself(name, contents):
    """A prompt that was shown and pasted back gives the same ids."""
    builder = PromptBuilder(BUILDERS[name]())
    messages = [Message(Role.USER, content or "x") for content in contents]
    shown = BUILDERS[name]().decode(builder.build(messages))
    assert builder.build(parse_prompt(shown)) == builder.build(messages)

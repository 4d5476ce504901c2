from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.conversation import Message, Role
from glm3.domain.process_response import process_response
from glm3.domain.prompt import PromptBuilder, messages_from_history
from glm3.domain.tool_call import format_tool_call
from support.tokenizers import BUILDERS, EVERY_TOKENIZER, some_text

TOOLS = [{"role": "system", "content": "s", "tools": [{"name": "track"}]}]
CALL = "```python\ntool_call(symbol='10111')\n```"


def assistant(content: str, metadata: str = "") -> dict[str, str]:
    return {"role": "assistant", "metadata": metadata, "content": content}


def test_a_plain_answer():
    history = [{"role": "user", "content": "你好"}]
    before = deepcopy(history)
    content, extended = process_response("\n 你好！ ", history)
    assert content == "你好！"
    assert extended == [*history, assistant("你好！ ")]
    assert history == before


@pytest.mark.parametrize(("output", "kept"), [("你好", "你好"), ("", ""), ("\n", "")])
def test_no_line_break_and_nothing_at_all(output, kept):
    assert process_response(output, []) == (kept, [assistant(kept)])


def test_a_call_with_tools_declared():
    content, history = process_response(f"track\n {CALL}", TOOLS)
    assert content == {"name": "track", "parameters": {"symbol": "10111"}}
    assert history == [*TOOLS, assistant(CALL, "track")]


def test_a_call_without_tools_declared():
    content, _ = process_response(f"track\n {CALL}", [{"role": "system", "content": "s"}])
    assert content == {"name": "track", "content": CALL}


def test_a_thought_and_a_call():
    content, history = process_response(f"\n 我来查询<|assistant|> track\n {CALL}<|observation|>", TOOLS)
    assert content == {"name": "track", "parameters": {"symbol": "10111"}}
    assert history[1:] == [assistant("我来查询"), assistant(CALL, "track")]


def test_the_last_part_is_returned():
    assert process_response("\n 一<|assistant|> \n 二", []) == ("二", [assistant("一"), assistant("二")])


def test_a_cut_call_is_text_with_a_reason():
    content, history = process_response("track\n ```python\ntool_call(symbol='10", TOOLS)
    assert content == {
        "name": "track",
        "content": "```python\ntool_call(symbol='10",
        "error": "a quoted text is not closed",
    }
    assert history[-1] == assistant("```python\ntool_call(symbol='10", "track")


def test_code_in_a_call_is_not_run(tmp_path):
    target = tmp_path / "made"
    content, _ = process_response(f"track\n ```python\ntool_call(a=open({str(target)!r}, 'w'))\n```", TOOLS)
    assert not target.exists()
    assert content["error"] == "an argument is not a literal value: Call"


def test_code_for_the_interpreter_is_content():
    content, _ = process_response("interpreter\n ```python\nprint(1)\n```", TOOLS)
    assert content == {"name": "interpreter", "content": "```python\nprint(1)\n```"}


def test_a_sentence_in_the_first_line_is_text():
    assert process_response("当然可以！\n1. 第一天", [])[0] == "当然可以！\n1. 第一天"


@pytest.mark.parametrize("marker", ["<|user|>", "<|observation|>"])
def test_a_stop_marker_at_the_end_is_not_content(marker):
    assert process_response(f"\n 你好{marker}", []) == ("你好", [assistant("你好")])


def test_the_training_date_is_filled_in_but_not_in_the_history():
    content, history = process_response("\n 截止[[训练时间]]", [])
    assert content == "截止2023年"
    assert history == [assistant("截止[[训练时间]]")]


@given(output=st.text("\n <|asitnuer>tool_call(=')`") | st.text(), tools=st.booleans())
def test_no_output_raises(output, tools):
    content, history = process_response(output, TOOLS if tools else [])
    assert isinstance(content, (str, dict))
    assert history[-1]["role"] == "assistant"


@pytest.mark.parametrize("name", [name for name in EVERY_TOKENIZER if name.values != ("bytes",)])
@given(
    contents=st.lists(some_text.filter(lambda text: "<|" not in text), min_size=1, max_size=3),
    call=st.booleans(),
)
def test_the_history_does_not_drift(name, contents, call):
    """Decoded as text, answers of several parts are still re-encoded to their own ids."""
    tokenizer = BUILDERS[name]()
    builder = PromptBuilder(tokenizer)
    messages = [Message(Role.ASSISTANT, content) for content in contents]
    if call:
        messages.append(format_tool_call("track", {"symbol": "10111"}))
    ids = [token for message in messages for token in builder.message_ids(message)]
    _, history = process_response(tokenizer.decode(ids[1:]), [])
    again = [token for message in messages_from_history(history) for token in builder.message_ids(message)]
    assert again == ids

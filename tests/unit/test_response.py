from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.domain.conversation import FinishReason, Message, Role, ToolCall
from glm3.domain.prompt import PromptBuilder
from glm3.domain.response import parse_response
from glm3.domain.tool_call import format_tool_call
from support.tokenizers import BUILDERS, EVERY_TOKENIZER, some_text

TOKENIZER = ByteTokenizer(dummy_prefix=True)
SPECIAL = TOKENIZER.special_tokens
CALL = "```python\ntool_call(city='北京')\n```"


def ids_of(*messages: Message, tokenizer=TOKENIZER) -> list[int]:
    """Return what a model writes behind its first ``<|assistant|>`` to say these messages."""
    builder = PromptBuilder(tokenizer)
    return [token for message in messages for token in builder.message_ids(message)][1:]


def said(content: str, metadata: str = "") -> Message:
    return Message(Role.ASSISTANT, content, metadata)


def reply_to(*messages: Message, stop: int | None = SPECIAL.user):
    return parse_response([*ids_of(*messages), *([] if stop is None else [stop])], TOKENIZER)


def raw(text: str, stop: int | None = SPECIAL.user):
    return parse_response([*TOKENIZER.encode(text), *([] if stop is None else [stop])], TOKENIZER)


one_line = some_text.map(lambda text: text.replace("\n", " "))
parts = st.lists(st.builds(said, some_text, st.just("") | one_line), min_size=1, max_size=3)


@pytest.mark.parametrize("name", EVERY_TOKENIZER)
@given(messages=parts, stop=st.sampled_from(["", "<|user|>", "<|observation|>"]))
def test_a_reply_does_not_drift(name, messages, stop):
    """Re-encoding what was read gives the ids that were written, in several parts too."""
    tokenizer = BUILDERS[name]()
    ids = ids_of(*messages, tokenizer=tokenizer)
    tail = [tokenizer.special_tokens.id_of(stop)] if stop else []
    reply = parse_response([*ids, *tail], tokenizer)
    assert ids_of(*reply.messages, tokenizer=tokenizer) == ids


@pytest.mark.parametrize("name", EVERY_TOKENIZER)
@pytest.mark.parametrize("content", [CALL, f" {CALL}"])
def test_a_call_does_not_drift_with_or_without_a_space(name, content):
    tokenizer = BUILDERS[name]()
    ids = ids_of(said("想一想"), said(content, "get_weather"), tokenizer=tokenizer)
    reply = parse_response([*ids, tokenizer.special_tokens.observation], tokenizer)
    assert reply.tool_call == ToolCall("get_weather", {"city": "北京"})
    assert reply.messages == (said("想一想"), said(content, "get_weather"))
    assert ids_of(*reply.messages, tokenizer=tokenizer) == ids


def test_a_plain_answer():
    reply = reply_to(said("你好！\n很高兴"))
    assert reply.text == "你好！\n很高兴"
    assert reply.messages == (said("你好！\n很高兴"),)
    assert (reply.thought, reply.tool_call, reply.tool_call_error, reply.code) == ("", None, None, None)


@pytest.mark.parametrize("stop", [2, SPECIAL.user, SPECIAL.observation])
def test_a_stop_id_is_cut_off_with_all_behind_it(stop):
    reply = parse_response([*ids_of(said("x")), stop, *TOKENIZER.encode("ghost")], TOKENIZER)
    assert (reply.text, reply.messages, reply.finish_reason) == ("x", (said("x"),), FinishReason.STOP)


def test_without_a_stop_id_the_answer_was_cut_off_unless_the_caller_knows_better():
    assert reply_to(said("x"), stop=None).finish_reason is FinishReason.LENGTH
    reply = parse_response(ids_of(said("x")), TOKENIZER, FinishReason.CANCELLED)
    assert reply.finish_reason is FinishReason.CANCELLED


def test_no_line_break_means_all_is_content():
    reply = raw("你好")
    assert (reply.text, reply.messages) == ("你好", (said("你好"),))


@pytest.mark.parametrize("ids", [[], [2], [SPECIAL.user]])
def test_an_empty_answer(ids):
    reply = parse_response(ids, TOKENIZER)
    assert (reply.text, reply.messages) == ("", (said(""),))


def test_a_first_line_that_is_a_sentence_is_shown():
    """A model that forgets its header line loses no text, and no call is reported."""
    reply = raw("当然可以！\n1. 第一天")
    assert reply.text == "当然可以！\n1. 第一天"
    assert reply.tool_call_error is None


def test_a_first_line_of_one_word_is_shown_if_nothing_looks_like_a_call():
    reply = raw("你好\n今天怎么样")
    assert (reply.text, reply.tool_call_error) == ("你好\n今天怎么样", None)


def test_a_thought_and_a_call_in_one_answer():
    reply = reply_to(said("我来查询。"), said(CALL, "get_weather"), stop=SPECIAL.observation)
    assert reply.thought == "我来查询。"
    assert reply.text == ""
    assert reply.tool_call == ToolCall("get_weather", {"city": "北京"})
    assert reply.finish_reason is FinishReason.TOOL_CALLS
    assert reply.tool_call_error is None


def test_several_plain_parts_are_all_shown():
    assert reply_to(said("一"), said("二")).text == "一\n二"


def test_of_several_calls_the_last_counts():
    first, second = format_tool_call("f", {"a": 1}), format_tool_call("g", {"b": 2})
    assert reply_to(first, second).tool_call == ToolCall("g", {"b": 2})


@pytest.mark.parametrize(
    "content", ["```python\ntool_call(city='北", "```python\ntool_call('北京')\n```", "tool_call("]
)
def test_a_malformed_call_is_text_with_a_reason(content):
    reply = reply_to(said("想"), said(content, "get_weather"))
    assert reply.tool_call is None
    assert reply.tool_call_error
    assert reply.text == f"get_weather\n{content}"
    assert reply.thought == "想"
    assert reply.finish_reason is FinishReason.STOP
    assert reply.messages == (said("想"), said(content, "get_weather"))


def test_a_turn_left_to_a_tool_without_a_call_is_reported():
    """The same text that ends for the user is plain text."""
    assert "no tool_call" in (
        reply_to(said("北京", "get_weather"), stop=SPECIAL.observation).tool_call_error or ""
    )
    assert reply_to(said("北京", "get_weather")).tool_call_error is None


def test_a_call_is_never_run(tmp_path):
    target = tmp_path / "made"
    reply = reply_to(said(f"```python\ntool_call(a=open({str(target)!r}, 'w'))\n```", "get_weather"))
    assert not target.exists()
    assert reply.tool_call_error == "an argument is not a literal value: Call"


def test_code_for_the_interpreter():
    reply = reply_to(
        said("算一下"), said("```python\nprint(1)\n```", "interpreter"), stop=SPECIAL.observation
    )
    assert (reply.code, reply.thought, reply.text) == ("print(1)", "算一下", "")
    assert reply.tool_call is None
    assert reply.finish_reason is FinishReason.TOOL_CALLS


def test_code_without_a_fence():
    assert reply_to(said("print(1)", "interpreter")).code == "print(1)"


@pytest.mark.parametrize(
    ("content", "reason"), [("```python\nimport shu", "cut off"), ("```python\n", "no code"), ("", "no code")]
)
def test_code_that_is_cut_off_or_empty_is_not_offered_to_run(content, reason):
    reply = reply_to(said(content, "interpreter"), stop=None)
    assert reply.code is None
    assert reason in (reply.tool_call_error or "")


def test_the_training_date_is_filled_in_for_the_reader_only():
    reply = reply_to(said("我的知识截止到[[训练时间]]。"))
    assert reply.text == "我的知识截止到2023年。"
    assert reply.messages[0].content == "我的知识截止到[[训练时间]]。"


@pytest.mark.parametrize("name", EVERY_TOKENIZER)
@given(ids=st.lists(st.integers(0, 500), max_size=30), tail=st.lists(st.integers(1, 9), max_size=6))
def test_no_ids_raise(name, ids, tail):
    tokenizer = BUILDERS[name]()
    size = tokenizer.special_tokens.vocab_size
    valid = [token for token in [*ids, *(size - offset for offset in tail), *ids] if token < size]
    assert parse_response(valid, tokenizer).messages

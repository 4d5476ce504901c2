from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.domain.conversation import FinishReason, Message, Reply, Role
from glm3.domain.prompt import PromptBuilder
from glm3.domain.reply_stream import ReplyStream
from glm3.domain.tool_call import format_tool_call
from support.tokenizers import runs_of

TOKENIZER = ByteTokenizer(dummy_prefix=True)
SPECIAL = TOKENIZER.special_tokens


def answer_ids(*messages: Message, stop: int = SPECIAL.user) -> list[int]:
    """What a model generates behind the prompt's ``<|assistant|>`` to say these messages."""
    builder = PromptBuilder(TOKENIZER)
    ids = [token for message in messages for token in builder.message_ids(message)]
    return [*ids[1:], stop]


def say(text: str) -> Message:
    return Message(Role.ASSISTANT, text)


def run(
    ids: Sequence[int], stop_strings: Sequence[str] = (), reason: FinishReason = FinishReason.STOP
) -> tuple[list[str], Reply]:
    stream = ReplyStream(TOKENIZER, stop_strings)
    deltas = []
    for token in ids:
        deltas.append(stream.push(token))
        if stream.stopped:
            break
    deltas.append(stream.finish())
    return [delta for delta in deltas if delta], stream.reply(reason)


def test_text_comes_piece_by_piece_and_never_half_a_character() -> None:
    deltas, reply = run(answer_ids(say("你好 👋！")))
    assert len(deltas) > 2
    assert not any("\N{REPLACEMENT CHARACTER}" in delta for delta in deltas)
    assert "".join(deltas) == reply.text == "你好 👋！"


def test_a_call_is_not_text() -> None:
    call = format_tool_call("get_weather", {"city": "北京"})
    deltas, reply = run(answer_ids(say("我来查一下。"), call, stop=SPECIAL.observation))
    assert "".join(deltas) == reply.thought == "我来查一下。"
    assert reply.tool_call is not None
    assert reply.tool_call.arguments == {"city": "北京"}
    assert reply.finish_reason is FinishReason.TOOL_CALLS


def test_a_header_that_names_a_tool_without_a_call_is_text_in_the_end() -> None:
    deltas, reply = run(answer_ids(Message(Role.ASSISTANT, "是一家公司", metadata="Huawei")))
    assert "".join(deltas) == reply.text == "Huawei\n 是一家公司".replace("\n ", "\n")


def test_an_answer_without_a_header_line_streams_as_soon_as_it_is_no_name() -> None:
    ids = TOKENIZER.encode("好的，这就来")
    stream = ReplyStream(TOKENIZER)
    early = "".join(stream.push(token) for token in ids)
    assert early.startswith("好的，")
    assert early + stream.finish() == "好的，这就来"


def test_the_training_date_is_filled_in_and_the_history_keeps_the_placeholder() -> None:
    deltas, reply = run(answer_ids(say("截至[[训练时间]]，[[训练]]")))
    assert "".join(deltas) == "截至2023年，[[训练]]"
    assert reply.messages[0].content == "截至[[训练时间]]，[[训练]]"


def test_a_stop_string_ends_text_and_history() -> None:
    deltas, reply = run(answer_ids(say("one, two, three")), stop_strings=[", th"])
    assert "".join(deltas) == reply.text == "one, two"
    assert [message.content for message in reply.messages] == ["one, two"]


def test_a_cancelled_answer_that_had_not_begun_leaves_no_message() -> None:
    assert run([], reason=FinishReason.CANCELLED)[1].messages == ()


def test_control_tokens_count_but_do_not_show() -> None:
    stream = ReplyStream(TOKENIZER)
    for token in answer_ids(say("ok")):
        stream.push(token)
    assert stream.token_count == len(answer_ids(say("ok")))
    assert "<|" not in stream.finish()


texts = st.text(alphabet=st.sampled_from("ab 你\n👋[训练时间]\t"), max_size=12)
headers = st.sampled_from(["", "", "", "get_weather", "interpreter", "two words"])
parts = st.builds(lambda header, text: Message(Role.ASSISTANT, text, header), headers, texts)


@given(messages=st.lists(parts, min_size=1, max_size=4), stop=st.sampled_from(SPECIAL.stop_ids))
def test_the_deltas_joined_are_what_the_reply_shows(messages: list[Message], stop: int) -> None:
    deltas, reply = run(answer_ids(*messages, stop=stop))
    assert "".join(deltas) == "\n".join(text for text in (reply.thought, reply.text) if text)


@given(
    messages=st.lists(parts, min_size=1, max_size=4),
    stops=st.lists(st.sampled_from(["b 你", "a"])),
    data=st.data(),
)
def test_ids_may_come_in_runs_of_any_length(
    messages: list[Message], stops: list[str], data: st.DataObject
) -> None:
    ids = answer_ids(*messages)
    stream = ReplyStream(TOKENIZER, stops)
    text = "".join(stream.push(*piece) for piece in data.draw(runs_of(ids))) + stream.finish()
    deltas, reply = run(ids, stops)
    assert text == "".join(deltas)
    assert stream.reply(FinishReason.STOP).text == reply.text


@given(ids=st.lists(st.integers(3, SPECIAL.vocab_size - 1), max_size=40))
def test_any_ids_at_all_make_a_reply(ids: list[int]) -> None:
    deltas, reply = run(ids)
    assert "".join(deltas) == "\n".join(text for text in (reply.thought, reply.text) if text)


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CANCELLED])
def test_a_cut_off_answer_keeps_what_was_said(reason: FinishReason) -> None:
    deltas, reply = run(answer_ids(say("half a sent"))[:-1], reason=reason)
    assert "".join(deltas) == reply.text == "half a sent"
    assert reply.finish_reason is reason

from __future__ import annotations

from collections.abc import Sequence

import pytest

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.scripted_model import ScriptedModel, reply_scores
from glm3.application.chat import ChatSession
from glm3.domain.conversation import FinishReason, Message, Reply, Role
from glm3.domain.errors import ContextLengthError, ConversationError
from glm3.domain.generation import GenerationConfig
from glm3.domain.prompt import PromptBuilder
from glm3.domain.tool_call import format_tool_call

TOKENIZER = ByteTokenizer()
SPECIAL = TOKENIZER.special_tokens


def model_that_says(*replies: str | Message, seq_length: int = 2000) -> ScriptedModel:
    def ids(reply: str | Message) -> list[int]:
        message = Message(Role.ASSISTANT, reply) if isinstance(reply, str) else reply
        end = SPECIAL.observation if message.metadata else SPECIAL.user
        return [*PromptBuilder(TOKENIZER).message_ids(message)[1:], end]

    scores = reply_scores(
        [ids(reply) for reply in replies], SPECIAL.vocab_size, start_id=SPECIAL.assistant, end_id=2
    )
    return ScriptedModel(scores, SPECIAL.vocab_size, seq_length=seq_length)


def contents(messages: Sequence[Message]) -> list[str]:
    return [message.content for message in messages]


def test_turns_are_kept_and_counted() -> None:
    session = ChatSession(model_that_says("one", "two"), TOKENIZER, system="be short")
    first = session.send("a")
    second = session.send("b")
    assert (first.text, second.text) == ("one", "two")
    assert contents(session.messages) == ["be short", "a", "one", "b", "two"]
    assert second.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens  # type: ignore[union-attr]
    assert second.finish_reason is FinishReason.STOP


def test_a_later_turn_computes_only_what_is_new() -> None:
    model = model_that_says("a long answer to keep", "two")
    session = ChatSession(model, TOKENIZER, system="a long system message " * 5)
    session.send("hello")
    computed = model.computed_tokens
    session.send("again")
    new = model.computed_tokens - computed
    assert session.last_stats is not None
    assert session.last_stats.cached_tokens > 100
    assert new < 40 + session.last_stats.completion_tokens


def test_a_closed_stream_keeps_the_partial_turn() -> None:
    session = ChatSession(model_that_says("a rather long answer", "yes"), TOKENIZER)
    stream = session.stream("q")
    said = "".join(str(next(stream)) for _ in range(5))
    stream.close()  # type: ignore[attr-defined]
    assert contents(session.messages) == ["q", said]
    assert session.send("go on").finish_reason is FinishReason.STOP


def test_cancel_ends_the_answer_with_its_reason() -> None:
    session = ChatSession(model_that_says("a rather long answer"), TOKENIZER)
    reply = None
    for item in session.stream("q"):
        if isinstance(item, Reply):
            reply = item
        else:
            session.cancel()
    assert reply is not None
    assert reply.finish_reason is FinishReason.CANCELLED
    assert contents(session.messages) == ["q", reply.text]


def test_a_call_and_its_observation() -> None:
    call = format_tool_call("get_weather", {"city": "北京"})
    session = ChatSession(model_that_says(call, "晴"), TOKENIZER, tools=[{"name": "get_weather"}])
    reply = session.send("北京天气")
    assert reply.tool_call is not None
    assert reply.text == ""
    assert session.send('{"weather": "晴"}', role=Role.OBSERVATION).text == "晴"
    assert [message.role for message in session.messages] == [
        Role.SYSTEM,
        Role.USER,
        Role.ASSISTANT,
        Role.OBSERVATION,
        Role.ASSISTANT,
    ]


def test_a_wrong_role_changes_nothing() -> None:
    session = ChatSession(model_that_says("x"), TOKENIZER)
    with pytest.raises(ConversationError):
        session.send("result", role=Role.OBSERVATION)
    assert session.messages == ()


def test_a_prompt_beyond_the_context_is_refused_with_both_lengths() -> None:
    session = ChatSession(model_that_says("x", seq_length=64), TOKENIZER)
    with pytest.raises(ContextLengthError, match=r"64 tokens.*prompt of \d+ tokens"):
        session.send("y" * 100)
    assert session.messages == ()


def test_trimming_drops_old_turns_and_keeps_the_system_message() -> None:
    session = ChatSession(
        model_that_says("one", "two", "three", seq_length=120),
        TOKENIZER,
        system="sys",
        options=GenerationConfig(max_new_tokens=20),
        trim=True,
    )
    session.send("a" * 30)
    session.send("b" * 30)
    assert session.dropped_messages == 0
    session.send("c" * 30)
    assert contents(session.messages)[0] == "sys"
    assert "a" * 30 not in contents(session.messages)
    assert session.dropped_messages == 2


def test_clear_keeps_the_system_message_alone() -> None:
    session = ChatSession(model_that_says("one"), TOKENIZER, system="sys")
    session.send("a")
    session.clear()
    assert contents(session.messages) == ["sys"]


def test_replace_checks_the_dialogue() -> None:
    session = ChatSession(model_that_says("one"), TOKENIZER)
    with pytest.raises(ConversationError):
        session.replace([Message(Role.USER, "a"), Message(Role.SYSTEM, "late")])
    session.replace([Message(Role.USER, "a"), Message(Role.ASSISTANT, "b")])
    assert contents(session.messages) == ["a", "b"]

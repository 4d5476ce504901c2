"""The real openai client against a real server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from glm3.adapters.memory.scripted_model import ScriptedModel, hashed_scores
from glm3.application.serving.access import AccessPolicy
from glm3.domain.conversation import Message, Role
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.ports.model import LanguageModel
from glm3.domain.tool_call import format_tool_call
from support.serving import TOKENIZER, replies_model, serving

USER = {"role": "user", "content": "北京天气怎么样？"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Say the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = format_tool_call("get_weather", {"city": "北京", "days": 2})
THOUGHT = Message(Role.ASSISTANT, "我来查一下。")
TOKEN = "a-token-for-tests-only"


@contextmanager
def client_of(
    model: LanguageModel, *, key: str = "none", **setup: Any
) -> Iterator[tuple[openai.OpenAI, Any]]:
    with (
        serving(model, **setup) as served,
        openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0, timeout=30) as client,
    ):
        yield client, served


@pytest.fixture(scope="module")
def plain() -> Iterator[openai.OpenAI]:
    """A client of a server that answers anything with x."""
    with client_of(replies_model("x")) as (client, _):
        yield client


def random_model() -> ScriptedModel:
    size = TOKENIZER.special_tokens.vocab_size
    return ScriptedModel(hashed_scores(size), size, seq_length=4096)


def joined(chunks: list[Any], index: int = 0) -> str:
    return "".join(
        choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == index
    )


def reasons(chunks: list[Any]) -> list[str]:
    return [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]


def test_models_are_listed(plain):
    assert [model.id for model in plain.models.list()] == ["scripted", "alias"]
    assert plain.models.retrieve("alias").id == "alias"
    with pytest.raises(openai.NotFoundError):
        plain.models.retrieve("gpt-4")


def test_a_whole_answer():
    with client_of(replies_model("晴，20 度 👋")) as (client, _):
        answer = client.chat.completions.create(model="scripted", messages=[USER], temperature=0)
    (choice,) = answer.choices
    assert (choice.message.content, choice.message.role) == ("晴，20 度 👋", "assistant")
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == "scripted"


def test_a_streamed_answer():
    with client_of(replies_model("晴，20 度 👋")) as (client, _):
        chunks = list(
            client.chat.completions.create(
                model="scripted",
                messages=[USER],
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert joined(chunks) == "晴，20 度 👋"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert reasons(chunks) == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_without_the_option_a_stream_has_no_usage(plain):
    chunks = list(plain.chat.completions.create(model="scripted", messages=[USER], stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_is_answered(streamed):
    """The whole round: call, result, answer, as an agent does it."""
    with client_of(replies_model([THOUGHT, CALL], "北京晴。")) as (client, _):
        asked: list[Any] = [USER]
        if streamed:
            with client.chat.completions.stream(
                model="scripted", messages=asked, tools=[TOOL], temperature=0
            ) as stream:
                choice = stream.get_final_completion().choices[0]
        else:
            choice = client.chat.completions.create(
                model="scripted", messages=asked, tools=[TOOL], temperature=0
            ).choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "我来查一下。"
        (call,) = choice.message.tool_calls
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "北京", "days": 2}
        asked += [
            choice.message.model_dump(exclude_none=True, exclude={"parsed"}),
            {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "晴"}'},
        ]
        for message in asked:
            for made in message.get("tool_calls", []):
                made["function"].pop("parsed_arguments", None)
        final = client.chat.completions.create(
            model="scripted", messages=asked, tools=[TOOL], temperature=0
        ).choices[0]
    assert (final.message.content, final.finish_reason) == ("北京晴。", "stop")


def test_the_history_of_calls_is_the_prompt_the_model_was_trained_on():
    """What comes back in OpenAI's form gives the ids that the model itself wrote."""
    model = replies_model([THOUGHT, CALL], "fine")
    with client_of(model) as (client, _):
        message = (
            client.chat.completions.create(model="scripted", messages=[USER], tools=[TOOL], temperature=0)
            .choices[0]
            .message
        )
        history: list[Any] = [
            USER,
            message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "晴"},
        ]
        usage = client.chat.completions.create(
            model="scripted", messages=history, tools=[TOOL], temperature=0
        ).usage
    assert usage.prompt_tokens_details.cached_tokens > 0
    new = usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens
    assert new <= len(TOKENIZER.encode("\n晴")) + 3  # the result, two role markers, the last token


def test_tool_choice():
    with client_of(random_model()) as (client, _):
        ask = {"model": "scripted", "messages": [USER], "tools": [TOOL], "max_tokens": 40, "temperature": 0}
        named = {"type": "function", "function": {"name": "get_weather"}}
        for choice in ("required", named):
            content = client.chat.completions.create(**ask, tool_choice=choice).choices[0].message.content
            assert content.startswith("get_weather\n```python\ntool_call")
    with client_of(replies_model(CALL)) as (client, _):
        choice = client.chat.completions.create(**ask, tool_choice="none").choices[0]
        assert choice.message.tool_calls is None


def test_several_answers_stop_strings_and_seeds():
    with client_of(random_model()) as (client, _):
        ask: dict[str, Any] = {
            "model": "scripted",
            "messages": [USER],
            "n": 3,
            "seed": 5,
            "max_tokens": 10,
            "temperature": 1.5,
        }
        first = [choice.message.content for choice in client.chat.completions.create(**ask).choices]
        again = [choice.message.content for choice in client.chat.completions.create(**ask).choices]
        assert first == again
        assert len(set(first)) == 3
        chunks = list(client.chat.completions.create(**ask, stream=True))
        assert [joined(chunks, index) for index in range(3)] == first
        assert len(reasons(chunks)) == 3
    with client_of(replies_model("one, two; three")) as (client, _):
        ask = {"model": "scripted", "messages": [USER], "temperature": 0}
        for stop, expected in ((";", "one, two"), ([" two", ";"], "one,")):
            choice = client.chat.completions.create(**ask, stop=stop).choices[0]
            assert (choice.message.content, choice.finish_reason) == (expected, "stop")


def test_log_probabilities():
    with client_of(replies_model("ab")) as (client, _):
        ask: dict[str, Any] = {
            "model": "scripted",
            "messages": [USER],
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 2,
        }
        content = client.chat.completions.create(**ask).choices[0].logprobs.content
        assert [token.token for token in content] == ["a", "b"]
        assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in content)
        assert all(token.top_logprobs[0].token == token.token for token in content)
        streamed = [
            token
            for chunk in client.chat.completions.create(**ask, stream=True)
            for choice in chunk.choices
            if choice.logprobs
            for token in choice.logprobs.content
        ]
        assert [token.token for token in streamed] == ["a", "b"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_length_of_an_answer_is_limited(name):
    with client_of(replies_model("a long answer")) as (client, _):
        answer = client.chat.completions.create(model="scripted", messages=[USER], temperature=0, **{name: 4})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 4


def test_text_is_continued():
    with client_of(random_model()) as (client, _):
        ask: dict[str, Any] = {
            "model": "scripted",
            "prompt": ["ab", "cd"],
            "max_tokens": 6,
            "temperature": 0,
            "extra_body": {"min_tokens": 6},
        }
        whole = client.completions.create(**ask, n=2)
        assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
        texts = [choice.text for choice in whole.choices]
        assert texts[0] == texts[1] != texts[2] == texts[3]
        chunks = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
        for index in range(2):
            text = "".join(c.text for chunk in chunks for c in chunk.choices if c.index == index)
            assert text == texts[2 * index]
        assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
        ids = [*TOKENIZER.special_tokens.prefix, *TOKENIZER.encode("ab")]
        by_ids = client.completions.create(**{**ask, "prompt": ids})
        assert by_ids.choices[0].text == texts[0]
        echoed = client.completions.create(**{**ask, "prompt": "ab"}, echo=True)
        assert echoed.choices[0].text == "ab" + texts[0]
        scored = client.completions.create(**{**ask, "prompt": "ab"}, logprobs=3).choices[0].logprobs
        assert len(scored.tokens) == len(scored.token_logprobs) == len(scored.top_logprobs)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "system", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "a"}]}, "messages[0].role"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": 1.01}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 99_999}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stop": ["a", ""]}, "stop"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"extra_body": {"beam_width": 4}}, "beam_width"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "messages"),
    ],
)
def test_what_is_wrong_is_named(plain, changes, param):
    with pytest.raises(openai.BadRequestError) as caught:
        plain.chat.completions.create(**{"model": "scripted", "messages": [USER], **changes})
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_a_model_that_is_not_served_is_not_found(plain):
    with pytest.raises(openai.NotFoundError) as caught:
        plain.chat.completions.create(model="gpt-4", messages=[USER])
    assert caught.value.code == "model_not_found"


def test_a_token_is_needed_where_there_are_any():
    policy = AccessPolicy({"someone": TOKEN})
    with client_of(replies_model("x"), key="wrong", access=policy) as (client, served):
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        known = client.with_options(api_key=TOKEN)
        assert known.chat.completions.create(model="scripted", messages=[USER]).choices
        assert served.engine.stats().waiting == 0


def test_who_asks_too_often_is_told_when_to_ask_again():
    with client_of(replies_model("x"), access=AccessPolicy(requests_per_minute=2)) as (client, _):
        for _ in range(2):
            client.chat.completions.create(model="scripted", messages=[USER])
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="scripted", messages=[USER])
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30


def test_a_full_queue_is_a_429():
    limits = EngineLimits(slots=1, slot_tokens=4096, queue=0)
    with client_of(random_model(), engine=limits) as (client, _):
        long: dict[str, Any] = {
            "model": "scripted",
            "messages": [USER],
            "max_tokens": 3000,
            "extra_body": {"min_tokens": 3000},
        }
        with client.chat.completions.create(**long, stream=True) as running:
            next(iter(running))
            with pytest.raises(openai.RateLimitError):
                client.chat.completions.create(**long)


def test_an_error_in_the_middle_of_a_stream_reaches_the_client():
    class Breaks(ScriptedModel):
        def extend(self, cache, rows, tokens):
            if len(self.calls) > 5:
                raise RuntimeError("a secret of the inside")
            return super().extend(cache, rows, tokens)

    size = TOKENIZER.special_tokens.vocab_size
    with client_of(Breaks(hashed_scores(size), size)) as (client, _):
        with pytest.raises(openai.APIError) as caught:
            list(
                client.chat.completions.create(
                    model="scripted", messages=[USER], stream=True, extra_body={"min_tokens": 50}
                )
            )
        assert "secret" not in str(caught.value)
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="scripted", messages=[USER])

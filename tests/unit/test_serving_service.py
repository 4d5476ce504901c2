"""The service layer: requests in, typed deltas out, whatever the protocol."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.scripted_model import ScriptedModel, hashed_scores
from glm3.application.serving.limits import ServiceLimits
from glm3.application.serving.problem import ProblemKind, problem_of
from glm3.application.serving.records import (
    ChatRequest,
    CompletionRequest,
    Delta,
    FinishDelta,
    TextDelta,
    ThoughtDelta,
    ToolCallDelta,
    ToolChoice,
    ToolMode,
    UsageDelta,
)
from glm3.domain.conversation import FinishReason, Message, Role, ToolCall, ToolSpec
from glm3.domain.engine.limits import EngineLimits
from glm3.domain.errors import (
    BackendError,
    ContextLengthError,
    InvalidInputError,
    OverloadedError,
    TimeLimitError,
    UnavailableError,
    UnknownModelError,
)
from glm3.domain.generation import GenerationConfig
from glm3.domain.generation_defaults import GenerationDefaults
from glm3.domain.prompt import TOOLS_PREAMBLE
from glm3.domain.tool_call import format_tool_call
from support.serving import TOKENIZER, replies_model, service_of

WEATHER = ToolSpec("get_weather", {"name": "get_weather", "description": "Say the weather."})
CALL = format_tool_call("get_weather", {"city": "北京"})
THOUGHT = Message(Role.ASSISTANT, "I shall look it up.")


def user(text: str = "hello") -> Message:
    return Message(Role.USER, text)


def chat(*messages: Message, **changes: Any) -> ChatRequest:
    options = GenerationConfig(**changes.pop("options", {}))
    return ChatRequest(messages=messages or (user(),), options=options, **changes)


def answer(model: ScriptedModel, request: ChatRequest | CompletionRequest, **setup: Any) -> list[Delta]:
    async def collect() -> list[Delta]:
        ask = service.chat if isinstance(request, ChatRequest) else service.complete
        with await ask(request) as stream:  # type: ignore[arg-type]
            return [delta async for delta in stream]

    with service_of(model, **setup) as (service, _):
        return asyncio.run(collect())


def text_of(deltas: list[Delta], choice: int = 0) -> str:
    return "".join(d.text for d in deltas if isinstance(d, TextDelta) and d.choice == choice)


def finish_of(deltas: list[Delta], choice: int = 0) -> FinishDelta:
    (finish,) = (d for d in deltas if isinstance(d, FinishDelta) and d.choice == choice)
    return finish


def test_text_comes_in_pieces_then_the_finish_then_the_usage():
    deltas = answer(replies_model("你好, world"), chat())
    assert text_of(deltas) == "你好, world"
    assert deltas[-2] == FinishDelta(0, FinishReason.STOP)
    assert isinstance(deltas[-1], UsageDelta)
    assert deltas[-1].usage.completion_tokens == 1 + len("你好, world".encode()) + 1


def test_a_call_comes_whole_and_makes_the_text_before_it_a_thought():
    deltas = answer(replies_model([THOUGHT, CALL]), chat(tools=[WEATHER]))
    assert text_of(deltas) == THOUGHT.content
    assert [d for d in deltas if isinstance(d, ThoughtDelta | ToolCallDelta)] == [
        ThoughtDelta(0, THOUGHT.content),
        ToolCallDelta(0, ToolCall("get_weather", {"city": "北京"})),
    ]
    assert finish_of(deltas).reason is FinishReason.TOOL_CALLS


def test_code_to_run_is_a_call_of_the_interpreter():
    code = Message(Role.ASSISTANT, "```python\nprint(1)\n```", "interpreter")
    deltas = answer(replies_model(code), chat(tools=[ToolSpec("interpreter", {"name": "interpreter"})]))
    assert ToolCallDelta(0, ToolCall("interpreter", {"code": "print(1)"})) in deltas


@pytest.mark.parametrize("changes", [{}, {"tools": [WEATHER], "tool_choice": ToolChoice(ToolMode.NONE)}])
def test_without_tools_a_call_is_text_like_any_other(changes):
    deltas = answer(replies_model([THOUGHT, CALL]), chat(**changes))
    assert text_of(deltas) == f"{THOUGHT.content}\n{CALL.metadata}\n{CALL.content}"
    assert finish_of(deltas).reason is FinishReason.STOP


def test_a_call_that_cannot_be_read_is_text_with_the_reason():
    broken = Message(Role.ASSISTANT, "```python\ntool_call(city=open('x'))\n```", "get_weather")
    deltas = answer(replies_model(broken), chat(tools=[WEATHER]))
    assert "open('x')" in text_of(deltas)
    assert "literal" in (finish_of(deltas).tool_call_error or "")


def test_a_call_can_be_demanded_by_name():
    """The model would say something else; what it must begin with is a call of that tool."""
    model = ScriptedModel(
        hashed_scores(TOKENIZER.special_tokens.vocab_size), TOKENIZER.special_tokens.vocab_size
    )
    tools = [WEATHER, ToolSpec("clock", {"name": "clock"})]
    request = chat(
        tools=tools, tool_choice=ToolChoice(ToolMode.REQUIRED, "clock"), options={"max_new_tokens": 40}
    )
    assert text_of(answer(model, request)).startswith("clock\n```python\ntool_call")
    anyone = chat(tools=tools, tool_choice=ToolChoice(ToolMode.REQUIRED), options={"max_new_tokens": 40})
    assert text_of(answer(model, anyone)).split("\n")[0] in ("clock", "get_weather")


def test_tools_are_shown_in_the_system_message():
    bare, with_system = replies_model("x"), replies_model("x")
    answer(bare, chat(tools=[WEATHER]))
    answer(with_system, chat(Message(Role.SYSTEM, "Be brief."), user(), tools=[WEATHER]))
    prompts = [
        TOKENIZER.decode([t for call in model.calls for t in call[0]]) for model in (bare, with_system)
    ]
    assert f"<|system|>\n{TOOLS_PREAMBLE}\n[" in prompts[0]
    assert "<|system|>\nBe brief.\n[" in prompts[1]
    assert all('"name": "get_weather"' in prompt for prompt in prompts)


def test_a_stop_string_ends_the_text_and_the_work():
    model = replies_model("one two three " * 50)
    deltas = answer(model, chat(options={"stop_strings": ["three"]}))
    assert text_of(deltas) == "one two "
    assert finish_of(deltas).reason is FinishReason.STOP
    assert model.computed_tokens == deltas[-1].usage.total_tokens - 1


def test_several_answers_are_numbered_and_counted_together():
    size = TOKENIZER.special_tokens.vocab_size
    model = ScriptedModel(hashed_scores(size), size)
    options = {"do_sample": True, "seed": 1, "max_new_tokens": 12}
    deltas = answer(model, chat(choices=3, options=options))
    again = answer(model, chat(choices=3, options=options))
    texts = [text_of(deltas, choice) for choice in range(3)]
    assert len(set(texts)) == 3
    assert texts == [text_of(again, choice) for choice in range(3)]
    assert deltas[-1].usage.completion_tokens <= 36
    assert deltas[-1].usage.prompt_tokens == again[-1].usage.prompt_tokens < 20


def test_logprobs_belong_to_the_text_they_come_with():
    deltas = answer(replies_model("hi 你"), chat(options={"logprobs": True}, top_logprobs=2))
    texts = [d for d in deltas if isinstance(d, TextDelta)]
    for delta in texts:  # a space waits for what follows, the bytes of a character for each other
        assert len(delta.logprobs) == len(delta.text.encode())
    assert "".join(token.text for d in texts for token in d.logprobs)[:3] == "hi "
    assert all(len(token.top) == 2 for d in texts for token in d.logprobs)


def test_a_continuation_goes_on_where_the_prompt_ends():
    special = TOKENIZER.special_tokens
    wanted = [*TOKENIZER.encode(" world. And"), 2]
    prompt = [*special.prefix, *TOKENIZER.encode("hello")]
    model = ScriptedModel(
        lambda ids: [float(i == wanted[len(ids) - len(prompt)]) for i in range(special.vocab_size)],
        special.vocab_size,
    )
    deltas = answer(model, CompletionRequest(prompts=["hello"], options=GenerationConfig()))
    assert text_of(deltas) == " world. And"
    echoed = CompletionRequest(prompts=[prompt], options=GenerationConfig(stop_strings=["."]), echo=True)
    assert text_of(answer(model, echoed)) == "hello world"


@pytest.mark.parametrize(
    ("request_", "error", "field"),
    [
        (chat(model="other"), UnknownModelError, "model"),
        (chat(options={"max_new_tokens": 5000}), InvalidInputError, "max_tokens"),
        (chat(choices=9), InvalidInputError, "n"),
        (chat(options={"stop_strings": list("abcdefghijklmnopqrst")}), InvalidInputError, "stop"),
        (chat(top_logprobs=21), InvalidInputError, "top_logprobs"),
        (chat(user("x" * 5000)), ContextLengthError, "messages"),
        (chat(user("x" * 50_000)), ContextLengthError, "messages"),
        (chat(tool_choice=ToolChoice(ToolMode.REQUIRED)), InvalidInputError, "tool_choice"),
        (
            CompletionRequest(prompts=["a", "x" * 5000], options=GenerationConfig()),
            ContextLengthError,
            "prompt[1]",
        ),
        (
            CompletionRequest(prompts=[[5, 10**6, 7]], options=GenerationConfig()),
            InvalidInputError,
            "prompt",
        ),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_its_field(request_, error, field):
    with pytest.raises(error) as caught:
        answer(replies_model("x"), request_)
    assert caught.value.field == field


def test_the_services_bounds_hold():
    limits = ServiceLimits(prompt_tokens=30, output_tokens=6, default_output_tokens=3, choices=1)
    model = replies_model("a long answer")
    deltas = answer(model, chat(user("hi")), limits=limits)
    assert (deltas[-1].usage.completion_tokens, finish_of(deltas).reason) == (3, FinishReason.LENGTH)
    for wrong in (chat(user("x" * 30)), chat(options={"max_new_tokens": 7}), chat(choices=2)):
        with pytest.raises(InvalidInputError):
            answer(model, wrong, limits=limits)


@pytest.mark.parametrize(
    ("limits", "defaults", "options", "tokens"),
    [
        ({}, {"max_new_tokens": 5}, {}, 5),
        ({}, {"max_new_tokens": 5, "max_length": 10}, {}, 5),
        ({}, {"max_new_tokens": 5}, {"max_new_tokens": 7}, 7),
        ({"default_output_tokens": 3}, {"max_new_tokens": 5}, {}, 3),
        ({"output_tokens": 4}, {"max_new_tokens": 5}, {}, 4),
        ({"output_tokens": 2000}, {}, {}, 1024),
    ],
)
def test_the_longest_answer_is_the_requests_else_the_services_else_the_folders(
    limits, defaults, options, tokens
):
    size = TOKENIZER.special_tokens.vocab_size
    request = chat(options={**options, "min_new_tokens": tokens})
    model, folder = ScriptedModel(hashed_scores(size), size), GenerationDefaults(**defaults)
    deltas = answer(model, request, limits=ServiceLimits(**limits), defaults=folder)
    assert deltas[-1].usage.completion_tokens == tokens


def test_a_folder_may_bound_prompt_and_answer_together():
    size = TOKENIZER.special_tokens.vocab_size
    model, folder = ScriptedModel(hashed_scores(size), size), GenerationDefaults(max_length=12)
    texts = CompletionRequest(
        prompts=[[5] * 4, [5] * 9], options=GenerationConfig(min_new_tokens=3), choices=1
    )
    assert answer(model, texts, defaults=folder)[-1].usage.completion_tokens == 8 + 3
    full = CompletionRequest(prompts=[[5] * 12], options=GenerationConfig())
    with pytest.raises(ContextLengthError, match="fewer than 12 tokens") as caught:
        answer(model, full, defaults=folder)
    assert caught.value.field == "prompt"
    named = CompletionRequest(
        prompts=[[5] * 12], options=GenerationConfig(max_new_tokens=2, min_new_tokens=2)
    )
    assert answer(model, named, defaults=folder)[-1].usage.completion_tokens == 2


def test_the_folders_ids_end_an_answer_beside_the_models_own():
    """The model reads out "stop", whose second token is made an end."""
    model, second = replies_model("stop"), TOKENIZER.encode("stop")[1]
    assert text_of(answer(model, chat())) == "stop"
    folder = GenerationDefaults(eos_token_id=second)
    ended = answer(model, chat(), defaults=folder)
    assert text_of(ended) == "st"
    assert finish_of(ended).reason is FinishReason.STOP


def test_an_answer_that_takes_too_long_fails():
    size = TOKENIZER.special_tokens.vocab_size
    model = ScriptedModel(hashed_scores(size), size)
    with pytest.raises(TimeLimitError):
        answer(model, chat(options={"max_new_tokens": 4000, "min_new_tokens": 4000}, time_limit=0.05))


def test_of_answers_that_do_not_all_fit_none_is_left_running():
    async def ask() -> None:
        with pytest.raises(OverloadedError):
            await service.chat(chat(choices=4, options={"max_new_tokens": 4000, "min_new_tokens": 4000}))
        assert await asyncio.to_thread(engine.wait_idle, 5)

    size = TOKENIZER.special_tokens.vocab_size
    model = ScriptedModel(hashed_scores(size), size)
    with service_of(model, engine=EngineLimits(slots=1, slot_tokens=4096, queue=1)) as (service, engine):
        asyncio.run(ask())


def test_tokens_that_come_faster_than_a_screen_shows_them_go_together():
    size, count = TOKENIZER.special_tokens.vocab_size, 2000
    options = {"max_new_tokens": count, "min_new_tokens": count}
    started = monotonic()
    deltas = answer(ScriptedModel(hashed_scores(size), size), chat(options=options))
    seconds = monotonic() - started
    assert isinstance(deltas[-1], UsageDelta)
    assert deltas[-1].usage.completion_tokens == count
    assert sum(isinstance(delta, TextDelta) for delta in deltas) <= 60 * seconds + 3


def test_leaving_the_block_cancels():
    async def ask() -> None:
        with await service.chat(chat(options={"max_new_tokens": 4000, "min_new_tokens": 4000})) as stream:
            async for _ in stream:
                break
        assert await asyncio.to_thread(engine.wait_idle, 5)

    size = TOKENIZER.special_tokens.vocab_size
    with service_of(ScriptedModel(hashed_scores(size), size)) as (service, engine):
        asyncio.run(ask())
        assert engine.stats().running == 0


def test_a_cancelled_stream_just_ends():
    async def ask() -> list[Delta]:
        stream = await service.chat(chat(options={"max_new_tokens": 4000, "min_new_tokens": 4000}))
        deltas = []
        async for delta in stream:
            deltas.append(delta)
            stream.cancel()
        return deltas

    size = TOKENIZER.special_tokens.vocab_size
    with service_of(ScriptedModel(hashed_scores(size), size)) as (service, _):
        assert not any(isinstance(delta, FinishDelta) for delta in asyncio.run(ask()))


@given(st.lists(st.sampled_from("ab你👋 \n"), max_size=30).map("".join))
def test_tokens_and_their_texts(text):
    with service_of(replies_model("x")) as (service, _):
        result = asyncio.run(service.tokenize(text))
    assert list(result.ids) == TOKENIZER.encode(text)
    assert len(result.pieces) == len(result.ids)


def test_a_prompt_is_counted_as_it_is_built():
    request = chat(Message(Role.SYSTEM, "s"), user("hello"), tools=[WEATHER])
    with service_of(replies_model("x")) as (service, _):
        count = asyncio.run(service.count_tokens(request))
    assert count == answer(replies_model("x"), request)[-1].usage.prompt_tokens


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidInputError("bad", field="a"), ProblemKind.INVALID),
        (ContextLengthError("long"), ProblemKind.CONTEXT_LENGTH),
        (OverloadedError("full", retry_after=3), ProblemKind.OVERLOADED),
        (UnavailableError("soon"), ProblemKind.UNAVAILABLE),
        (UnknownModelError("who"), ProblemKind.UNKNOWN_MODEL),
        (TimeLimitError("late"), ProblemKind.TIME_LIMIT),
        (BackendError("/secret/path"), ProblemKind.INTERNAL),
        (KeyError("secret"), ProblemKind.INTERNAL),
    ],
)
def test_errors_have_a_kind_and_say_nothing_of_the_inside(error, kind):
    problem = problem_of(error)
    assert problem.kind is kind
    assert "secret" not in problem.message

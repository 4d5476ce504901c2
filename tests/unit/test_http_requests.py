"""Reading requests: OpenAI's form, ChatGLM3's form, and everything that is neither."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.application.serving.records import ToolChoice, ToolMode
from glm3.domain.conversation import Message, Role
from glm3.domain.errors import Glm3Error, InvalidInputError, MultipleFaultsError
from glm3.domain.generation_defaults import GenerationDefaults
from glm3.domain.tool_call import format_tool_call
from glm3.entrypoints.http.requests import read_chat, read_completion
from glm3.entrypoints.serving.fields import parse_object

USER = {"role": "user", "content": "hello"}


def messages_of(*items: dict[str, Any]) -> list[Message]:
    return list(read_chat({"messages": list(items)}).request.messages)


def call(id_: str, name: str = "clock", arguments: str = "{}") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_roles_become_turns():
    assert messages_of(
        {"role": "developer", "content": "be brief"},
        {"role": "system", "content": [{"type": "text", "text": "and kind"}]},
        {**USER, "name": "Ann"},
        {"role": "assistant", "content": "hi", "refusal": None},
        USER,
    ) == [
        Message(Role.SYSTEM, "be brief\nand kind"),
        Message(Role.USER, "hello"),
        Message(Role.ASSISTANT, "hi"),
        Message(Role.USER, "hello"),
    ]


def test_calls_and_results_take_turns():
    """The model makes one call at a time; results may come in any order."""
    assert messages_of(
        USER,
        {"role": "assistant", "content": "both", "tool_calls": [call("a"), call("b", "weather", '{"c": 1}')]},
        {"role": "tool", "tool_call_id": "b", "content": "sun"},
        {"role": "tool", "tool_call_id": "a", "content": "noon"},
        USER,
    )[1:-1] == [
        Message(Role.ASSISTANT, "both"),
        format_tool_call("weather", {"c": 1}),
        Message(Role.OBSERVATION, "sun"),
        format_tool_call("clock", {}),
        Message(Role.OBSERVATION, "noon"),
    ]


def test_the_older_form_and_the_models_own_mean_the_same():
    own = [
        USER,
        {"role": "assistant", "metadata": "clock", "content": format_tool_call("clock", {"z": "x"}).content},
        {"role": "observation", "content": "noon"},
    ]
    older = [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "clock", "arguments": '{"z": "x"}'}},
        {"role": "function", "name": "clock", "content": "noon"},
    ]
    newer = [
        USER,
        {"role": "assistant", "tool_calls": [call("1", arguments='{"z": "x"}')]},
        {"role": "tool", "tool_call_id": "1", "content": "noon"},
    ]
    assert messages_of(*own) == messages_of(*older) == messages_of(*newer)


def test_code_that_was_run_comes_back_as_the_model_wrote_it():
    turn = messages_of(
        USER,
        {"role": "assistant", "tool_calls": [call("1", "interpreter", json.dumps({"code": "print(1)"}))]},
        {"role": "tool", "tool_call_id": "1", "content": "1"},
    )[1]
    assert turn == Message(Role.ASSISTANT, "```python\nprint(1)\n```", "interpreter")


def test_tools_in_every_form():
    function = {"name": "clock", "description": "d", "parameters": {"type": "object"}}
    bare = {"name": "clock", "description": "d", "params": [{"name": "zone"}]}
    newer = read_chat({"messages": [USER], "tools": [{"type": "function", "function": function}]})
    assert newer.request.tools[0].definition == function
    assert not newer.legacy_functions
    own = read_chat({"messages": [USER], "tools": [bare]})
    assert own.request.tools[0].definition == bare
    older = read_chat({"messages": [USER], "functions": [function], "function_call": {"name": "clock"}})
    assert older.request.tool_choice == ToolChoice(ToolMode.REQUIRED, "clock")
    assert older.legacy_functions
    assert read_chat({"messages": [USER], "functions": function}).request.tools == older.request.tools


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (True, 0.8, 0.8)),
        ({"temperature": 0}, (False, 0.8, 1.0)),
        ({"temperature": 1.2}, (True, 1.2, 1.0)),
        ({"temperature": 1.2, "top_p": 0.5}, (True, 1.2, 0.5)),
        ({"top_p": 0}, (False, 0.8, 0.8)),
        ({"do_sample": False}, (False, 0.8, 0.8)),
    ],
)
def test_how_an_answer_is_sampled(given, expected):
    options = read_chat({"messages": [USER], **given}).request.options
    assert (options.do_sample, options.temperature, options.top_p) == expected


FOLDER = GenerationDefaults(do_sample=False, temperature=0.4, top_k=7, top_p=0.3, repetition_penalty=1.5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (False, 0.4, 7, 0.3, 1.5)),
        ({"seed": 1, "repetition_penalty": 1}, (False, 0.4, 7, 0.3, 1.0)),
        ({"temperature": 1.2}, (True, 1.2, 7, 0.3, 1.5)),
        ({"top_p": 0.9}, (True, 0.4, 7, 0.9, 1.5)),
        ({"top_k": 0}, (True, 0.4, 0, 0.3, 1.5)),
        ({"do_sample": True}, (True, 0.4, 7, 0.3, 1.5)),
        ({"do_sample": False, "top_k": 3}, (False, 0.4, 3, 0.3, 1.5)),
        ({"temperature": 0}, (False, 0.4, 7, 0.3, 1.5)),
    ],
)
def test_a_requests_own_fields_stand_above_the_folders(given, expected):
    chat = read_chat({"messages": [USER], **given}, FOLDER).request.options
    text = read_completion({"prompt": "x", **given}, FOLDER).request.options
    for options in (chat, text):
        found = (options.do_sample, options.temperature, options.top_k, options.top_p)
        assert (*found, options.repetition_penalty) == expected


def test_a_greedy_request_is_greedy_in_a_folder_that_samples():
    folder = GenerationDefaults(do_sample=True)
    assert not read_chat({"messages": [USER], "temperature": 0}, folder).request.options.do_sample


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"messages": "hello"}, ["messages"]),
        ({"messages": None}, ["messages"]),
        ({"messages": [5]}, ["messages[0]"]),
        ({"messages": [USER] * 10_001}, ["messages"]),
        ({"tools": [{"name": f"t{index}"} for index in range(129)]}, ["tools"]),
        ({"stop": ["x"] * 129}, ["stop"]),
        ({"messages": [{"content": "x"}]}, ["messages[0].role"]),
        ({"messages": [{"role": "user"}]}, ["messages[0].content"]),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, ["messages[0].content"]),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            ["messages[0].content[0].type"],
        ),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, ["messages[0].content"]),
        ({"messages": [{**USER, "colour": 1}]}, ["messages[0].colour"]),
        ({"messages": [USER, {"role": "observation", "content": "x"}]}, ["messages[1].role"]),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [call("a")]}, USER]},
            ["messages[1].tool_calls"],
        ),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "tool_calls": [call("a")]},
                    {"role": "tool", "tool_call_id": "z", "content": "x"},
                ]
            },
            ["messages[2].tool_call_id", "messages[1].tool_calls"],
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [call("a", arguments="[1]")]}]},
            ["messages[1].tool_calls[0].function.arguments"],
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [call("a", name="no name")]}]},
            ["messages[1].tool_calls[0].function.name"],
        ),
        ({"tools": [{"type": "function", "function": {}}]}, ["tools[0].function.name"]),
        ({"tools": [{"name": "a"}, {"name": "a"}]}, ["tools[1].name"]),
        ({"tools": [{"name": "a", "parameters": 3}]}, ["tools[0].parameters"]),
        ({"tools": [{"name": "a"}], "tool_choice": "maybe"}, ["tool_choice"]),
        (
            {"tools": [{"name": "a"}], "tool_choice": {"type": "function", "function": {"name": "b"}}},
            ["tool_choice.function.name"],
        ),
        ({"temperature": "hot", "top_p": True, "n": 1.5}, ["temperature", "top_p", "n"]),
        ({"stream": "yes"}, ["stream"]),
        ({"stream_options": {"include_usage": True}}, ["stream_options"]),
        ({"stream": True, "stream_options": {"include_all": True}}, ["stream_options.include_all"]),
        ({"seed": 2**70}, ["seed"]),
        ({"stop": [1]}, ["stop[0]"]),
        ({"stop": 5}, ["stop"]),
        ({"min_tokens": 9, "max_tokens": 3}, ["min_tokens"]),
        ({"do_sample": True, "temperature": 0}, ["do_sample"]),
        ({"response_format": {"type": "json_object"}}, ["response_format"]),
        ({"logit_bias": {"5": 1}}, ["logit_bias"]),
        ({"top_logprobs": 2}, ["top_logprobs"]),
        ({"unknown": 1, "temperature": -1}, ["temperature", "unknown"]),
    ],
)
def test_every_fault_is_named_by_its_field(changes, fields):
    with pytest.raises(InvalidInputError) as caught:
        read_chat({"messages": [USER], **changes})
    error = caught.value
    faults = error.faults if isinstance(error, MultipleFaultsError) else [error]
    assert sorted(fault.field for fault in faults) == sorted(fields)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["\udc00"]}, "prompt[0]"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"best_of": 4}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_is_wrong_with_a_completion(changes, field):
    with pytest.raises(InvalidInputError) as caught:
        read_completion({"prompt": "x", **changes})
    assert caught.value.field == field


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'{"a": NaN}', b'{"a": -Infinity}', b"\xff"),
        b'{"a": ' + b"[" * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object(body):
    with pytest.raises(InvalidInputError):
        parse_object(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = """
messages model tools tool_choice functions function_call temperature top_p n stop stream stream_options seed
max_tokens max_completion_tokens min_tokens logprobs top_logprobs prompt echo best_of do_sample
"""
names = st.sampled_from(NAMES.split())
likely_message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "function", "observation", "x"])},
    optional={
        "content": json_values | st.text(max_size=5),
        "tool_calls": json_values | st.lists(st.just(call("a")), max_size=2),
        "tool_call_id": st.sampled_from(["a", "b"]) | json_values,
        "function_call": json_values | st.just({"name": "f", "arguments": "{}"}),
        "metadata": json_values,
    },
)


@given(st.dictionaries(names, json_values, max_size=5), st.lists(likely_message, max_size=5) | json_values)
def test_no_body_makes_the_reader_fail_otherwise_than_by_an_error_of_its_own(body, messages):
    for read in (read_chat, read_completion):
        with suppress(Glm3Error):
            read({"messages": messages, **body})

"""Read the requests of OpenAI's API, and the forms of ChatGLM3's own server, into the service's records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from glm3.application.serving.records import ChatRequest, CompletionRequest, ToolChoice, ToolMode
from glm3.domain.conversation import ToolSpec
from glm3.domain.generation_defaults import UNSAID, GenerationDefaults
from glm3.domain.response import names_tool
from glm3.entrypoints.http.messages import read_messages
from glm3.entrypoints.serving.bounds import MOST_CHOICES, MOST_LOGPROBS, MOST_TOOLS
from glm3.entrypoints.serving.fields import Fields
from glm3.entrypoints.serving.sampling_fields import read_options, read_unused

__all__ = ["ChatCall", "CompletionCall", "read_chat", "read_completion"]


@frozen
class ChatCall:
    """A chat request, and how its answer is to be written.

    ``legacy_functions``: the caller knows ``function_call`` only, not ``tool_calls``.
    """

    request: ChatRequest
    stream: bool
    include_usage: bool
    legacy_functions: bool


@frozen
class CompletionCall:
    """A completion request, and how its answer is to be written."""

    request: CompletionRequest
    stream: bool
    include_usage: bool


def read_chat(body: Mapping[str, Any], defaults: GenerationDefaults = UNSAID) -> ChatCall:
    """Read the body of ``/v1/chat/completions``; ``defaults`` are those of the model that is asked.

    Raises:
        Glm3Error: fields are wrong, unknown or contradict each other; all of them are named.
    """
    fields = Fields(body)
    messages = read_messages(fields)
    legacy = fields.raw("functions") is not None and fields.raw("tools") is None
    tools = _tools(fields, "functions" if legacy else "tools")
    choice = _tool_choice(fields, "function_call" if legacy else "tool_choice", tools)
    if not legacy:
        fields.only("functions")
        fields.only("function_call", "none", "auto")
    logprobs = fields.flag("logprobs") or False
    top_logprobs = fields.integer("top_logprobs", 0, MOST_LOGPROBS)
    if top_logprobs and not logprobs:
        fields.fault("top_logprobs", "needs logprobs", "logprobs: true beside it", top_logprobs)
    stream, include_usage = _stream(fields)
    options = read_options(fields, ("max_tokens", "max_completion_tokens"), defaults, logprobs=logprobs)
    model, choices = fields.text("model"), fields.integer("n", 1, MOST_CHOICES) or 1
    read_unused(fields)
    fields.refuse_unknown()
    fields.raise_faults()
    request = ChatRequest(
        messages=messages,
        options=options,
        model=model,
        tools=tools,
        tool_choice=choice,
        choices=choices,
        top_logprobs=top_logprobs or 0,
    )
    return ChatCall(request, stream, include_usage, legacy)


def read_completion(body: Mapping[str, Any], defaults: GenerationDefaults = UNSAID) -> CompletionCall:
    """Read the body of ``/v1/completions``; raises as :func:`read_chat` does."""
    fields = Fields(body)
    prompts = _prompts(fields)
    top_logprobs = fields.integer("logprobs", 0, MOST_LOGPROBS)
    stream, include_usage = _stream(fields)
    options = read_options(fields, ("max_tokens",), defaults, logprobs=top_logprobs is not None)
    model, choices = fields.text("model"), fields.integer("n", 1, MOST_CHOICES) or 1
    echo = fields.flag("echo") or False
    if echo and top_logprobs is not None:
        fields.fault("echo", "not supported together with logprobs", "one of them", True)
    fields.only("best_of", choices)
    fields.only("suffix", "")
    read_unused(fields)
    fields.refuse_unknown()
    fields.raise_faults()
    request = CompletionRequest(
        prompts=prompts,
        options=options,
        model=model,
        choices=choices,
        top_logprobs=top_logprobs or 0,
        echo=echo,
    )
    return CompletionCall(request, stream, include_usage)


def _stream(fields: Fields) -> tuple[bool, bool]:
    stream = fields.flag("stream") or False
    given = fields.nested("stream_options")
    if given is None:
        return stream, False
    if not stream:
        fields.fault("stream_options", "only a stream has them", "stream: true beside it")
    include_usage = given.flag("include_usage") or False
    given.ignore("include_obfuscation")
    given.refuse_unknown()
    return stream, include_usage


def _tools(fields: Fields, name: str) -> list[ToolSpec]:
    """Read OpenAI's form, and ChatGLM3's, whose tools are the bare function objects."""
    value = fields.raw(name)
    items = [value] if isinstance(value, Mapping) else fields.items(name)
    tools: list[ToolSpec] = []
    if items is not None and len(items) > MOST_TOOLS:
        fields.fault(name, "too many tools", f"at most {MOST_TOOLS}", len(items))
        return tools
    for index, item in enumerate(items or ()):
        place = f"{name}[{index}]"
        tool = fields.object_at(place, item)
        if tool is None:
            continue
        definition: Mapping[str, Any] = item
        if "function" in item:
            tool.only("type", "function")
            inner = tool.nested("function")
            if inner is None:
                continue
            tool, definition = inner, item["function"]
        tool_name = tool.text("name")
        if tool_name is None or not names_tool(tool_name):
            tool.fault("name", "not a name for a tool", "letters, digits, _ . : / -", tool_name)
        elif any(tool_name == other.name for other in tools):
            tool.fault("name", "two tools have the same name", "a name of its own", tool_name)
        elif not isinstance(definition.get("parameters", {}), Mapping | list):
            tool.fault("parameters", "not a JSON schema", "an object", definition["parameters"])
        else:
            tools.append(ToolSpec(tool_name, _without_nulls(definition)))
    return tools


def _without_nulls(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what OpenAI's form has and the model was never shown."""
    return {key: value for key, value in definition.items() if value is not None and key != "strict"}


def _tool_choice(fields: Fields, name: str, tools: list[ToolSpec]) -> ToolChoice:
    value = fields.raw(name)
    if value is None:
        return ToolChoice()
    if isinstance(value, str):
        if value not in set(ToolMode):
            fields.fault(
                name, "unknown choice", "none, auto, required, or one tool's name in an object", value
            )
            return ToolChoice()
        choice = ToolChoice(ToolMode(value))
    else:
        chosen = fields.nested(name)
        if chosen is None:
            return ToolChoice()
        chosen.only("type", "function")
        inner = chosen.nested("function") or chosen
        wanted = inner.text("name")
        if wanted is None or wanted not in [tool.name for tool in tools]:
            known = ", ".join(tool.name for tool in tools)
            inner.fault("name", "no such tool is offered", known or "tools beside it", wanted)
            return ToolChoice()
        choice = ToolChoice(ToolMode.REQUIRED, wanted)
    if choice.mode is ToolMode.REQUIRED and not tools:
        fields.fault(name, "there are no tools to choose from", "tools beside it", value)
        return ToolChoice()
    return choice


def _prompts(fields: Fields) -> list[str | list[int]]:
    value = fields.raw("prompt")
    if isinstance(value, str):
        return [value] if fields.is_text("prompt", value) else []
    if isinstance(value, list) and value:
        if all(_is_id(item) for item in value):
            return [value]
        if len(value) <= MOST_CHOICES and all(_is_prompt(item) for item in value):
            texts = [fields.is_text(f"prompt[{i}]", p) for i, p in enumerate(value) if isinstance(p, str)]
            return value if all(texts) else []
    fields.fault("prompt", "nothing to continue", "text, ids, or a list of these", value)
    return []


def _is_prompt(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and bool(value) and all(map(_is_id, value)))


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31

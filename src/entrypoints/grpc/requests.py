"""Read the messages of chat.proto into the service's records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message as ProtoMessage

from glm3.application.serving.records import ChatRequest, CompletionRequest, ToolChoice, ToolMode
from glm3.application.serving.sessions import Session
from glm3.domain.conversation import Message, ToolSpec
from glm3.domain.errors import Glm3Error, InvalidInputError
from glm3.domain.generation import GenerationConfig
from glm3.domain.generation_defaults import UNSAID, GenerationDefaults
from glm3.domain.response import names_tool
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from glm3.entrypoints.grpc.messages import read_messages
from glm3.entrypoints.serving.bounds import MOST_CHOICES, MOST_LOGPROBS, MOST_TOOLS
from glm3.entrypoints.serving.fields import Fields, parse_object
from glm3.entrypoints.serving.sampling_fields import read_options

__all__ = ["read_chat", "read_completion", "read_count", "read_opening", "read_turn"]

_MODES = {
    chat_pb2.ToolChoice.MODE_UNSPECIFIED: ToolMode.AUTO,
    chat_pb2.ToolChoice.MODE_AUTO: ToolMode.AUTO,
    chat_pb2.ToolChoice.MODE_NONE: ToolMode.NONE,
    chat_pb2.ToolChoice.MODE_REQUIRED: ToolMode.REQUIRED,
}


def read_chat(
    given: chat_pb2.ChatRequest, time_limit: float | None, defaults: GenerationDefaults = UNSAID
) -> ChatRequest:
    """Read a dialogue to answer within ``time_limit`` seconds; ``defaults`` are those of the model asked.

    Raises:
        Glm3Error: fields are wrong or contradict each other; all of them are named.
    """
    root = Fields({})
    messages = read_messages(given.messages, root)
    tools = _tools(given.tools, root)
    choice = _tool_choice(given.tool_choice, tools, root)
    options, top_logprobs = _options(given.options, root, defaults)
    choices = _choices(given, root)
    root.raise_faults()
    return ChatRequest(
        messages=messages,
        options=options,
        model=given.model or None,
        tools=tools,
        tool_choice=choice,
        choices=choices,
        top_logprobs=top_logprobs,
        time_limit=time_limit,
    )


def read_completion(
    given: chat_pb2.CompleteRequest, time_limit: float | None, defaults: GenerationDefaults = UNSAID
) -> CompletionRequest:
    """Read texts to continue; raises as :func:`read_chat` does."""
    root = Fields({})
    prompts: list[str | list[int]] = []
    if 1 <= len(given.prompts) <= MOST_CHOICES:
        prompts = [_prompt(prompt, f"prompts[{index}]", root) for index, prompt in enumerate(given.prompts)]
    else:
        root.fault("prompts", "nothing to continue, or too much", f"1 to {MOST_CHOICES}", len(given.prompts))
    options, top_logprobs = _options(given.options, root, defaults)
    if given.echo and options.logprobs:
        root.fault("echo", "not supported together with logprobs", "one of them", True)
    choices = _choices(given, root)
    root.raise_faults()
    return CompletionRequest(
        prompts=prompts,
        options=options,
        model=given.model or None,
        choices=choices,
        top_logprobs=top_logprobs,
        echo=given.echo,
        time_limit=time_limit,
    )


def read_count(given: chat_pb2.CountTokensRequest) -> ChatRequest:
    """Read a dialogue to measure; raises as :func:`read_chat` does."""
    root = Fields({})
    messages = read_messages(given.messages, root)
    tools = _tools(given.tools, root)
    choice = _tool_choice(given.tool_choice, tools, root)
    root.raise_faults()
    return ChatRequest(
        messages=messages,
        options=GenerationConfig(),
        model=given.model or None,
        tools=tools,
        tool_choice=choice,
    )


def read_opening(given: chat_pb2.CreateSessionRequest) -> tuple[list[Message], list[ToolSpec]]:
    """Read the messages and tools a session begins with; raises as :func:`read_chat` does."""
    root = Fields({})
    messages = read_messages(given.messages, root, may_be_empty=True)
    tools = _tools(given.tools, root)
    root.raise_faults()
    return messages, tools


def read_turn(
    given: chat_pb2.SessionChatRequest,
    session: Session,
    time_limit: float | None,
    defaults: GenerationDefaults = UNSAID,
) -> tuple[list[Message], ChatRequest]:
    """Read what a turn adds to a session, and return it with the whole to answer.

    Raises:
        Glm3Error: as :func:`read_chat`.
    """
    root = Fields({})
    added = read_messages(given.messages, root, before=session.messages)
    choice = _tool_choice(given.tool_choice, session.tools, root)
    options, top_logprobs = _options(given.options, root, defaults)
    root.raise_faults()
    request = ChatRequest(
        messages=(*session.messages, *added),
        options=options,
        tools=session.tools,
        tool_choice=choice,
        top_logprobs=top_logprobs,
        time_limit=time_limit,
    )
    return added, request


def _values(given: ProtoMessage) -> dict[str, Any]:
    """Return the fields that are set, of the types that JSON has."""
    return {field.name: list(value) if field.is_repeated else value for field, value in given.ListFields()}


def _options(
    given: chat_pb2.GenerationOptions, root: Fields, defaults: GenerationDefaults
) -> tuple[GenerationConfig, int]:
    fields = Fields(_values(given), "options", root.faults)
    top_logprobs = fields.integer("top_logprobs", 0, MOST_LOGPROBS)
    if top_logprobs and not given.logprobs:
        fields.fault("top_logprobs", "needs logprobs", "logprobs: true beside it", top_logprobs)
    return read_options(fields, ("max_tokens",), defaults, logprobs=given.logprobs), top_logprobs or 0


def _choices(given: chat_pb2.ChatRequest | chat_pb2.CompleteRequest, root: Fields) -> int:
    values = {"choices": given.choices} if given.HasField("choices") else {}
    return Fields(values, "", root.faults).integer("choices", 1, MOST_CHOICES) or 1


def _prompt(given: chat_pb2.Prompt, where: str, root: Fields) -> str | list[int]:
    form = given.WhichOneof("form")
    if form == "text":
        return given.text
    ids = list(given.ids.ids)
    if not ids or min(ids) < 0:
        root.fault(where, "nothing to continue", "a text, or ids from 0", ids[:8] or None)
    return ids


def _tools(given: Sequence[chat_pb2.Tool], root: Fields) -> list[ToolSpec]:
    tools: list[ToolSpec] = []
    if len(given) > MOST_TOOLS:
        root.fault("tools", "too many tools", f"at most {MOST_TOOLS}", len(given))
        return tools
    for index, tool in enumerate(given):
        at = Fields({}, f"tools[{index}]", root.faults)
        if not names_tool(tool.name):
            at.fault("name", "not a name for a tool", "letters, digits, _ . : / -", tool.name)
        elif any(tool.name == other.name for other in tools):
            at.fault("name", "two tools have the same name", "a name of its own", tool.name)
        else:
            tools.append(ToolSpec(tool.name, _definition(tool, at.place("parameters_json"), root.faults)))
    return tools


def _definition(tool: chat_pb2.Tool, where: str, faults: list[Glm3Error]) -> Mapping[str, Any]:
    definition: dict[str, Any] = {"name": tool.name}
    if tool.description:
        definition["description"] = tool.description
    if tool.parameters_json:
        try:
            definition["parameters"] = parse_object(tool.parameters_json, "the schema")
        except InvalidInputError as error:
            faults.append(InvalidInputError(error.message, field=where, expected=error.expected))
    return definition


def _tool_choice(given: chat_pb2.ToolChoice, tools: Sequence[ToolSpec], root: Fields) -> ToolChoice:
    at = Fields({}, "tool_choice", root.faults)
    mode = _MODES.get(given.mode)
    names = [tool.name for tool in tools]
    if mode is None:
        at.fault("mode", "unknown mode", ", ".join(chat_pb2.ToolChoice.Mode.keys()[1:]), given.mode)
    elif mode is not ToolMode.REQUIRED and given.name:
        at.fault("name", "goes with MODE_REQUIRED only", found=given.name)
    elif mode is ToolMode.REQUIRED and not tools:
        at.fault("mode", "there are no tools to choose from", "tools")
    elif given.name and given.name not in names:
        at.fault("name", "no such tool is offered", ", ".join(names), given.name)
    else:
        return ToolChoice(mode, given.name or None)
    return ToolChoice()

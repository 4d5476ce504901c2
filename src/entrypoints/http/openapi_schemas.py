"""JSON schemas of the requests that are read, and of the answers; the readers decide, this describes them.

Null counts as absent in every field of a request that is not required.
"""

from __future__ import annotations

from typing import Any

from glm3.application.serving.records import ToolMode
from glm3.domain.conversation import FinishReason
from glm3.entrypoints.serving.bounds import (
    MOST_CHOICES,
    MOST_LOGPROBS,
    MOST_MESSAGES,
    MOST_STOPS,
    MOST_TOKENS,
    MOST_TOOLS,
    SEEDS,
)

__all__ = ["SCHEMAS", "ref"]

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """Return a reference to one of :data:`SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema, *required: str, more: bool = False) -> Schema:
    """Return an object's schema; what is not required may be null."""
    described = {
        name: schema if name in required else _or_null(schema) for name, schema in properties.items()
    }
    made: Schema = {"type": "object", "properties": described, "additionalProperties": more}
    return {**made, "required": list(required)} if required else made


def _or_null(schema: Schema) -> Schema:
    if not schema:
        return schema
    if isinstance(schema.get("type"), str) and "enum" not in schema and "const" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _integer(low: int, high: int, description: str = "") -> Schema:
    schema: Schema = {"type": "integer", "minimum": low, "maximum": high}
    return {**schema, "description": description} if description else schema


def _number(low: float, high: float, description: str = "") -> Schema:
    schema: Schema = {"type": "number", "minimum": low, "maximum": high}
    return {**schema, "description": description} if description else schema


def _list(items: Schema, least: int = 0, most: int | None = None) -> Schema:
    schema: Schema = {"type": "array", "items": items, "minItems": least}
    return schema if most is None else {**schema, "maxItems": most}


_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_ANYTHING: Schema = {}
_TOOL_NAME: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9_.:/\-]{1,128}$"}
_CONTENT: Schema = {"anyOf": [_TEXT, _list(ref("ContentPart"))]}
_ID = _integer(0, 2**31 - 1)
_JSON_OBJECT: Schema = {"type": "object"}

_OPTIONS: Schema = {
    "model": {"type": "string", "description": "One of those that /v1/models lists; by default the first."},
    "stream": _FLAG,
    "stream_options": _object({"include_usage": _FLAG, "include_obfuscation": _FLAG}),
    "n": _integer(1, MOST_CHOICES, "Answers; how many are allowed is the server's own limit."),
    "max_tokens": _integer(1, MOST_TOKENS),
    "min_tokens": _integer(0, MOST_TOKENS),
    "temperature": _number(0, 2, "0 is greedy."),
    "top_p": _number(0, 1),
    "top_k": _integer(0, MOST_TOKENS, "0 keeps all."),
    "do_sample": _FLAG,
    "repetition_penalty": _number(0.01, 100),
    "seed": _integer(-SEEDS, SEEDS - 1, "Requests with one repeat."),
    "stop": {
        "anyOf": [
            {"type": "string", "minLength": 1},
            _list({"type": "string", "minLength": 1}, 0, MOST_STOPS),
        ]
    },
}
_WITHOUT_EFFECT: Schema = {
    **dict.fromkeys(
        ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"), _ANYTHING
    ),
    "parallel_tool_calls": _ANYTHING,
    "frequency_penalty": {"const": 0},
    "presence_penalty": {"const": 0},
    "logit_bias": {"const": {}},
    "response_format": {"const": {"type": "text"}},
    "modalities": {"const": ["text"]},
    "num_beams": {"const": 1},
}
_CALL = _object({"name": _TOOL_NAME, "arguments": {"anyOf": [_TEXT, _JSON_OBJECT]}}, "name", "arguments")
_FUNCTION = _object(
    {"name": _TOOL_NAME, "description": _TEXT, "parameters": _JSON_OBJECT, "strict": _FLAG}, "name", more=True
)
_TOOL = {
    "anyOf": [
        _object({"type": {"const": "function"}, "function": ref("Function")}, "function"),
        ref("Function"),
    ]
}
_CHOICE_OF_TOOL = _object(
    {"type": {"const": "function"}, "function": _object({"name": _TOOL_NAME}, "name")}, "function"
)
_MODES: Schema = {"enum": [mode.value for mode in ToolMode]}


def _message(roles: tuple[str, ...], required: tuple[str, ...] = ("content",), **more: Schema) -> Schema:
    properties = {
        "role": {"enum": list(roles)},
        "content": _CONTENT,
        "name": _ANYTHING,
        "metadata": _ANYTHING,
    }
    return _object({**properties, **more}, "role", *required)


_REQUESTS: Schema = {
    "ContentPart": {
        "anyOf": [
            _object({"type": {"const": "text"}, "text": _TEXT}, "type", "text", more=True),
            _object({"type": {"const": "refusal"}, "refusal": _TEXT}, "type", "refusal", more=True),
        ]
    },
    "Function": _FUNCTION,
    "ToolCall": _object(
        {"id": _TEXT, "type": {"const": "function"}, "index": _ANYTHING, "function": _CALL}, "function"
    ),
    "SystemMessage": _message(("system", "developer")),
    "UserMessage": _message(("user",)),
    "AssistantMessage": _message(
        ("assistant",),
        (),
        metadata={
            "type": "string",
            "pattern": r"^[^\n]*$",
            "description": "A tool's name, as ChatGLM3 has it.",
        },
        tool_calls=_list(ref("ToolCall")),
        function_call=_CALL,
        **dict.fromkeys(("refusal", "audio", "annotations", "reasoning_content"), _ANYTHING),
    ),
    "ResultMessage": _message(("tool", "function", "observation"), name=_TEXT, tool_call_id=_TEXT),
    "Message": {
        "anyOf": [ref(f"{name}Message") for name in ("System", "User", "Assistant", "Result")],
        "description": "A system message comes first; a result follows a call; every call has a result.",
    },
    "ChatRequest": _object(
        {
            "messages": _list(ref("Message"), 1, MOST_MESSAGES),
            **_OPTIONS,
            "max_completion_tokens": _integer(1, MOST_TOKENS),
            "logprobs": _FLAG,
            "top_logprobs": _integer(0, MOST_LOGPROBS, "Needs logprobs."),
            "tools": {"anyOf": [_list(_TOOL, 0, MOST_TOOLS), ref("Function")]},
            "tool_choice": {"anyOf": [_MODES, _CHOICE_OF_TOOL]},
            "functions": _list(ref("Function"), 0, MOST_TOOLS),
            "function_call": {"anyOf": [_MODES, _object({"name": _TOOL_NAME}, "name")]},
            **_WITHOUT_EFFECT,
        },
        "messages",
    ),
    "CompletionRequest": _object(
        {
            "prompt": {
                "anyOf": [
                    _TEXT,
                    _list(_ID, 1),
                    _list({"anyOf": [_TEXT, _list(_ID, 1)]}, 1, MOST_CHOICES),
                ]
            },
            **_OPTIONS,
            "logprobs": _integer(0, MOST_LOGPROBS),
            "echo": _FLAG,
            "best_of": _integer(1, MOST_CHOICES, "The same as n."),
            "suffix": {"const": ""},
            **_WITHOUT_EFFECT,
        },
        "prompt",
    ),
    "TokenizeRequest": {
        "anyOf": [
            _object({"text": _TEXT, "prompt": _ANYTHING, "model": _ANYTHING}, "text"),
            _object({"prompt": _TEXT, "model": _ANYTHING}, "prompt"),
            ref("ChatRequest"),
        ]
    },
}

_REASONS: Schema = {"enum": [*(reason.value for reason in FinishReason), "function_call", None]}
_COUNT = {"type": "integer", "minimum": 0}
_USAGE: Schema = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), _COUNT),
        "prompt_tokens_details": {"type": "object", "properties": {"cached_tokens": _COUNT}},
    },
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
}


def _answer(kind: str, choice: Schema) -> Schema:
    choices = {
        "type": "object",
        "properties": {"index": _COUNT, "finish_reason": _REASONS, "logprobs": _ANYTHING, **choice},
        "required": ["index", "finish_reason", *choice],
    }
    return {
        "type": "object",
        "properties": {
            "id": _TEXT,
            "object": {"const": kind},
            "created": _COUNT,
            "model": _TEXT,
            "choices": _list(choices),
            "usage": {"anyOf": [ref("Usage"), {"type": "null"}]},
        },
        "required": ["id", "object", "created", "model", "choices"],
    }


_ANSWERS: Schema = {
    "Usage": _USAGE,
    "ChatCompletion": _answer("chat.completion", {"message": _JSON_OBJECT}),
    "ChatChunk": _answer("chat.completion.chunk", {"delta": _JSON_OBJECT}),
    "Completion": _answer("text_completion", {"text": _TEXT}),
    "Model": {
        "type": "object",
        "properties": {
            "id": _TEXT,
            "object": {"const": "model"},
            "created": _COUNT,
            "owned_by": _TEXT,
            "context_length": _COUNT,
        },
        "required": ["id", "object", "created", "owned_by", "context_length"],
    },
    "Models": {
        "type": "object",
        "properties": {"object": {"const": "list"}, "data": _list(ref("Model"))},
        "required": ["object", "data"],
    },
    "Tokens": {
        "type": "object",
        "properties": {"count": _COUNT, "tokens": _list(_ID), "pieces": _list(_TEXT)},
        "required": ["count"],
    },
    "Status": {
        "type": "object",
        "properties": {"status": {"enum": ["ok", "loading", "ready", "draining"]}},
        "required": ["status"],
    },
    "Error": {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": _TEXT,
                    "type": _TEXT,
                    "param": {"type": ["string", "null"], "description": "The field, with its full place."},
                    "code": {"type": ["string", "null"]},
                    "faults": _list(_JSON_OBJECT),
                },
                "required": ["message", "type", "param", "code"],
            }
        },
        "required": ["error"],
    },
}

SCHEMAS: Schema = {**_REQUESTS, **_ANSWERS}
"""By name; what a request's schema allows may still contradict itself, or exceed a limit of the server."""

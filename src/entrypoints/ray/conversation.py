"""Tell by a request alone to which conversation it belongs, so that its turns meet the same KV cache."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

__all__ = ["SESSION_HEADER", "conversation_key"]

SESSION_HEADER = "x-session-id"
"""Clients that know their conversations may name them; ``prompt_cache_key`` in the body does the same."""

_BEGINNING = 1024  # characters of a text, or ids, that tell one beginning from another


def conversation_key(headers: Mapping[str, str], body: bytes) -> str:
    """Return a name that all turns of one conversation share, or "" where nothing tells.

    That is what the client calls it, or else its beginning: everything up to the first user's message, which
    every later turn repeats. Requests with a common system message only are different conversations.
    """
    if named := headers.get(SESSION_HEADER):
        return _name("session", named)
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(asked, dict):
        return ""
    if isinstance(key := asked.get("prompt_cache_key"), str):
        return _name("key", key)
    if isinstance(messages := asked.get("messages"), list):
        return _name("messages", [asked.get("tools"), asked.get("functions"), list(_beginning(messages))])
    if isinstance(prompt := asked.get("prompt"), str | list):
        return _name("prompt", prompt[:_BEGINNING])
    return ""


def _beginning(messages: Iterable[object]) -> Iterable[object]:
    for message in messages:
        if not isinstance(message, dict):
            return
        yield [message.get("role"), message.get("content")]
        if message.get("role") == "user":
            return


def _name(kind: str, value: Any) -> str:
    text = json.dumps([kind, value], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:32]

"""Ask a running ``glm3 serve`` over gRPC.

::

    from glm3.client import ChatClient, TextDelta

    with ChatClient("127.0.0.1:50051") as client:
        for delta in client.chat("你好"):
            if isinstance(delta, TextDelta):
                print(delta.text, end="")

Needs no MindSpore. Errors are those of :mod:`glm3.domain.errors`.
"""

from glm3.application.serving.records import (
    Delta,
    FinishDelta,
    ServedModel,
    TextDelta,
    ThoughtDelta,
    Tokenized,
    TokenLogprob,
    ToolCallDelta,
    ToolChoice,
    ToolMode,
    UsageDelta,
)
from glm3.domain.conversation import FinishReason, Message, Role, ToolCall, ToolSpec, Usage
from glm3.entrypoints.client.answers import Completion, Completions, DeltaStream
from glm3.entrypoints.client.chat_client import ChatClient, Session
from glm3.entrypoints.client.options import ChatOptions

__all__ = [
    "ChatClient",
    "ChatOptions",
    "Completion",
    "Completions",
    "Delta",
    "DeltaStream",
    "FinishDelta",
    "FinishReason",
    "Message",
    "Role",
    "ServedModel",
    "Session",
    "TextDelta",
    "ThoughtDelta",
    "TokenLogprob",
    "Tokenized",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolMode",
    "ToolSpec",
    "Usage",
    "UsageDelta",
]

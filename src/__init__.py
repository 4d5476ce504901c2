"""glm3: finetune, merge and chat with ChatGLM3-6B on MindSpore.

Importing this package does no work; names are loaded at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from glm3._version import __version__

if TYPE_CHECKING:
    from glm3.entrypoints.python import (
        AutoConfig,
        AutoModel,
        AutoProcessor,
        AutoTokenizer,
        ChatSession,
        ToolLimits,
        TrainSession,
        convert,
        export_gguf,
        finetune,
        merge_adapter,
        merge_checkpoints,
        process_response,
        quantize,
    )

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoProcessor",
    "AutoTokenizer",
    "ChatSession",
    "ToolLimits",
    "TrainSession",
    "__version__",
    "convert",
    "export_gguf",
    "finetune",
    "merge_adapter",
    "merge_checkpoints",
    "process_response",
    "quantize",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("glm3.entrypoints.python"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

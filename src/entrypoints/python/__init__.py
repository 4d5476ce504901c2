"""The Python API; everything here is also a name of the package itself."""

from __future__ import annotations

from glm3.application.tools.runner import ToolLimits
from glm3.domain.process_response import process_response
from glm3.entrypoints.python.auto import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer
from glm3.entrypoints.python.chat import ChatSession
from glm3.entrypoints.python.config import ChatGLM2Config
from glm3.entrypoints.python.convert import convert
from glm3.entrypoints.python.export import export_gguf
from glm3.entrypoints.python.merging import merge_checkpoints
from glm3.entrypoints.python.model import ChatGLM2ForConditionalGeneration
from glm3.entrypoints.python.quantizing import quantize
from glm3.entrypoints.python.tokenizer import ChatGLM3Tokenizer
from glm3.entrypoints.python.training import TrainSession, finetune, merge_adapter

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoProcessor",
    "AutoTokenizer",
    "ChatGLM2Config",
    "ChatGLM2ForConditionalGeneration",
    "ChatGLM3Tokenizer",
    "ChatSession",
    "ToolLimits",
    "TrainSession",
    "convert",
    "export_gguf",
    "finetune",
    "merge_adapter",
    "merge_checkpoints",
    "process_response",
    "quantize",
]

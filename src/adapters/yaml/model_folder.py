"""Write the YAML of a model folder: what MindFormers and this project need beside a ``.ckpt``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from attrs import fields

from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.model_config import ModelConfig
from glm3.domain.tensors import DType

__all__ = ["model_folder_yaml", "write_model_yaml"]

_HEADER = """\
# A ChatGLM3 model in MindFormers' layout: this file, one .ckpt, tokenizer.model.
#
#   glm3 chat -m FOLDER
"""


def model_folder_yaml(config: ModelConfig, tokenizer_file: str = "tokenizer.model") -> str:
    """Return ``model`` and ``processor`` of a configuration; what is not set is left out."""
    network: dict[str, Any] = {"type": "ChatGLM2Config"}
    for attribute in fields(ModelConfig):
        value = getattr(config, attribute.name)
        if value is not None and value != {}:
            network[attribute.name] = _yaml_value(value)
    content = {
        "model": {"model_config": network, "arch": {"type": "ChatGLM2ForConditionalGeneration"}},
        "trainer": {"type": "CausalLanguageModelingTrainer", "model_name": "glm3_6b"},
        "processor": {
            "return_tensors": "ms",
            "tokenizer": {"type": "ChatGLM3Tokenizer", "vocab_file": tokenizer_file},
            "type": "GLMProcessor",
        },
    }
    return _HEADER + "\n" + yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def write_model_yaml(path: Path, config: ModelConfig, tokenizer_file: str = "tokenizer.model") -> Path:
    """Write that file atomically and return its path.

    Raises:
        StorageError: the file system refused.
    """
    content = model_folder_yaml(config, tokenizer_file).encode()
    with staged_file(path, len(content)) as place:
        write_durably(place, content)
    return path


class _Dumper(yaml.SafeDumper):
    """Never aliases: equal values are written out."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _yaml_value(value: Any) -> Any:
    if isinstance(value, DType):
        return value.value
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else list(value)
    return dict(value) if hasattr(value, "items") else value

"""What each target format of a conversion is made of, and what goes beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from glm3.application.checkpoint_stores import CONFIG_NAME, folder_of
from glm3.domain.atomic_write import WEIGHT_SUFFIXES, require_replaceable
from glm3.domain.errors import UsageError
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameter_check import implied_config
from glm3.domain.parameters import from_mindspore_name, to_mindspore_name
from glm3.domain.tensors import DType, TensorSpec

__all__ = ["COMPANION_FILES", "TARGETS", "Target", "companions", "require_target"]

COMPANION_FILES = (
    "generation_config.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "configuration_chatglm.py",
    "modeling_chatglm.py",
    "quantization.py",
    "tokenization_chatglm.py",
    "LICENSE",
    "MODEL_LICENSE",
)
"""What the published folder holds besides weights and config.json."""

_STALE_METADATA = ("format", "crc_num", "remove_redundancy")  # true of the file they were in alone


@frozen
class Target:
    """One target format: the store that writes it and the names its tensors bear."""

    store: str
    mindspore_names: bool
    suffixes: tuple[str, ...]  # none: a folder
    framework: str | None = None  # "format" of safetensors' metadata, which transformers insists on

    @property
    def is_folder(self) -> bool:
        return not self.suffixes

    def name(self, stored: str) -> str:
        """Return a tensor's name in the target, whatever world the source is of."""
        plain = from_mindspore_name(stored)
        return to_mindspore_name(plain) if self.mindspore_names else plain

    def metadata(self, source: Mapping[str, str]) -> dict[str, str]:
        """Return the source's metadata as far as it holds for the target."""
        kept = {key: text for key, text in source.items() if key not in _STALE_METADATA}
        return kept if self.framework is None else {**kept, "format": self.framework}


TARGETS: Mapping[str, Target] = {
    "hf": Target("safetensors", mindspore_names=False, suffixes=(), framework="pt"),
    "safetensors": Target("safetensors", mindspore_names=True, suffixes=(".safetensors",), framework="ms"),
    "ckpt": Target("ckpt", mindspore_names=True, suffixes=(".ckpt",)),
    "bin": Target("torch", mindspore_names=False, suffixes=(".bin", ".pth", ".pt")),
}


def require_target(path: Path, format_name: str, source: Path, overwrite: bool) -> Target:
    """Return the target format after checking that ``path`` suits it.

    Raises:
        UsageError: the format is unknown, the name does not suit it, or ``path`` exists already.
        StorageError: ``path`` is a folder that is not replaced.
    """
    target = TARGETS.get(format_name)
    if target is None:
        raise UsageError("no such format", field="format", expected=", ".join(TARGETS), found=format_name)
    if not target.is_folder and path.suffix not in target.suffixes:
        raise UsageError(
            f"format {format_name} needs a file name", path=path, expected=" or ".join(target.suffixes)
        )
    if target.is_folder and path.suffix in WEIGHT_SUFFIXES:
        raise UsageError(f"format {format_name} needs a folder, not a file name", path=path)
    if path.exists() and path.resolve() in (source.resolve(), folder_of(source).resolve()):
        raise UsageError("source and target are the same", path=path)
    if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError("exists already", path=path, hint="choose another name or ask to overwrite it")
    if target.is_folder:
        require_replaceable(path)
    return target


def companions(
    source: Path,
    config: ModelConfig | None,
    dtype: DType | None,
    specs: Sequence[TensorSpec],
    notes: list[str],
) -> dict[str, bytes]:
    """Return the files of a Hugging Face folder besides its weights, by name.

    They are taken from beside the source; a missing config.json is read off the shapes and ``notes`` says
    what had to be assumed.
    """
    folder = folder_of(source)
    files = {name: (folder / name).read_bytes() for name in COMPANION_FILES if (folder / name).is_file()}
    if dtype is not None and config is not None:
        config = config.evolve(param_init_type=dtype.value)
    if config is None:
        implied = implied_config({from_mindspore_name(spec.name): spec for spec in specs})
        if implied is None:
            notes.append(f"no {CONFIG_NAME} was written: the tensors do not tell the network")
            return files
        config = implied.config
        notes += [f"{CONFIG_NAME} was read off the shapes: {text}" for text in implied.assumptions]
    files[CONFIG_NAME] = (json.dumps(config.to_hugging_face(), ensure_ascii=False, indent=2) + "\n").encode()
    return files

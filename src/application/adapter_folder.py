"""Adapters on disk: ``adapter_model.safetensors`` and ``adapter_config.json``, named as PEFT names them.

Beside PEFT's keys the configuration holds ``base_sha256`` and ``base_bytes`` of the weights that the adapter
was trained on: on others it means nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from glm3.application.checkpoint_stores import find_store, store_of_format
from glm3.domain.atomic_write import WEIGHT_SUFFIXES, staged_folder, write_durably
from glm3.domain.errors import BackendError, CheckpointError, ConfigError
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.model import LanguageModel
from glm3.domain.ports.training import SupportsLoRA
from glm3.domain.tensors import Array, to_float32
from glm3.domain.training.lora import LINEAR_MODULES, LoRAConfig, from_adapter_name, to_peft_name
from glm3.domain.training.run_events import CheckpointSaved
from glm3.domain.training.run_state import spec_of

__all__ = [
    "BaseIdentity",
    "StoredAdapter",
    "apply_adapter",
    "is_adapter_folder",
    "read_adapter",
    "write_adapter",
]

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"

_HASHED_ON_LOAD = 2_000_000_000
"""Larger bases are told by their size alone when an adapter is loaded: 12 GB take ten seconds to hash."""


@frozen(kw_only=True)
class BaseIdentity:
    """The weights an adapter belongs to; ``name`` is how the user called them."""

    name: str | None
    sha256: str | None = None
    nbytes: int | None = None

    @classmethod
    def of(cls, name: str | None, weights: Path | None) -> BaseIdentity:
        """Hash weights: a file's content, or of a folder each file's name and hash in order."""
        if weights is None:
            return cls(name=name)
        return cls(name=name, sha256=_digest(weights), nbytes=_size(weights))

    def require(self, weights: Path | None, adapter: Path) -> None:
        """Check that weights are the ones that are meant.

        Raises:
            CheckpointError: they are others.
        """
        if weights is None or self.nbytes is None:
            return
        size = _size(weights)
        same = size == self.nbytes and (size > _HASHED_ON_LOAD or _digest(weights) == self.sha256)
        if not same:
            raise CheckpointError(
                "the adapter was trained on other weights than these",
                path=adapter,
                field="base_sha256",
                expected=self.sha256,
                found=f"{size} bytes at {weights}",
                hint=f"it was trained on {self.name}",
            )


@frozen(kw_only=True)
class StoredAdapter:
    """An adapter read from ``folder``; parameters are float32, by the project's names."""

    folder: Path
    config: LoRAConfig
    base: BaseIdentity
    parameters: Mapping[str, Array]


def is_adapter_folder(path: Path) -> bool:
    """Tell whether a folder holds an adapter."""
    return (path / CONFIG_NAME).is_file()


def write_adapter(
    folder: Path,
    parameters: Mapping[str, Array],
    config: LoRAConfig,
    base: BaseIdentity,
    stores: Sequence[CheckpointStore],
    step: int,
) -> CheckpointSaved:
    """Publish an adapter as one folder, which may replace another.

    Raises:
        StorageError: the file system refused; what was in the place of the folder is still there.
    """
    begun = time.monotonic()
    store = store_of_format("safetensors", stores)
    named = {to_peft_name(name): np.ascontiguousarray(array) for name, array in parameters.items()}
    specs = [spec_of(name, array) for name, array in named.items()]
    with staged_folder(folder, sum(spec.nbytes for spec in specs)) as made:
        with store.create(made / WEIGHTS_NAME, specs, {"format": "pt"}) as writer:
            for name, array in named.items():
                writer.write(name, array)
        text = json.dumps(_peft_config(config, base), ensure_ascii=False, indent=2)
        write_durably(made / CONFIG_NAME, f"{text}\n".encode())
    nbytes = sum(spec.nbytes for spec in specs)
    return CheckpointSaved(step=step, path=folder, nbytes=nbytes, seconds=time.monotonic() - begun)


def read_adapter(folder: Path, stores: Sequence[CheckpointStore]) -> StoredAdapter:
    """Read an adapter of ours, or one that PEFT saved.

    Raises:
        ConfigError: its configuration is damaged, or of another method.
        MissingFileError, CheckpointError: its weights cannot be read.
    """
    path = folder / CONFIG_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("peft_type", "LORA") != "LORA":
            raise ConfigError("not a LoRA adapter", path=path, field="peft_type", found=values["peft_type"])
        config = LoRAConfig(
            rank=int(values["r"]),
            alpha=float(values["lora_alpha"]),
            dropout=float(values.get("lora_dropout") or 0.0),
            target_modules=values["target_modules"],
        )
        base = BaseIdentity(
            name=values.get("base_model_name_or_path") or None,
            sha256=values.get("base_sha256"),
            nbytes=values.get("base_bytes"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"not an adapter's configuration: {error!r}", path=path) from None
    weights = folder / WEIGHTS_NAME
    with find_store(weights, stores).open(weights) as reader:
        parameters = {
            from_adapter_name(name): np.array(to_float32(reader.read(name), spec.dtype))
            for name, spec in reader.tensors.items()
        }
    return StoredAdapter(folder=folder, config=config, base=base, parameters=parameters)


def apply_adapter(model: LanguageModel, adapter: StoredAdapter) -> None:
    """Let a model answer with an adapter.

    Raises:
        BackendError: the model's backend cannot.
        ParameterMismatchError: the adapter is of another shape.
    """
    if not isinstance(model, SupportsLoRA):
        raise BackendError("this backend cannot run adapters", found=type(model).__name__)
    model.add_lora(adapter.config)
    model.set_adapter_parameters(adapter.parameters)


def _peft_config(config: LoRAConfig, base: BaseIdentity) -> dict[str, Any]:
    last_names = [module.rpartition(".")[2] for module in LINEAR_MODULES]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "base_sha256": base.sha256,
        "base_bytes": base.nbytes,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": [name for name in last_names if config.targets(name)],
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _files(weights: Path) -> list[Path]:
    if weights.is_file():
        return [weights]
    return sorted(path for path in weights.iterdir() if path.suffix in WEIGHT_SUFFIXES)


def _size(weights: Path) -> int:
    return sum(path.stat().st_size for path in _files(weights))


def _digest(weights: Path) -> str:
    digests = []
    for path in _files(weights):
        with path.open("rb") as file:
            digests.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    if weights.is_file():
        return digests[0][1]
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in digests).encode()).hexdigest()

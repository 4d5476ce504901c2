"""Adapters on disk: what is written reads back, and what PEFT writes is understood."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.safetensors.store import SafetensorsStore
from glm3.application.adapter_folder import is_adapter_folder, read_adapter, write_adapter
from glm3.application.base_identity import BaseIdentity
from glm3.domain.errors import CheckpointError, ConfigError
from glm3.domain.tensors import Array, DType, TensorSpec
from glm3.domain.training.lora import LoRAConfig

STORES = [SafetensorsStore()]
CONFIG = LoRAConfig(rank=2, alpha=6.0, dropout=0.1, target_modules=("query_key_value", "dense"))
NAME = "transformer.encoder.layers.0.self_attention.query_key_value.mindpet_delta_lora_{}"
PARAMETERS: dict[str, Array] = {
    NAME.format("a"): np.arange(6, dtype=np.float32).reshape(2, 3),
    NAME.format("b"): np.arange(10, dtype=np.float32).reshape(5, 2),
}


def weights(tmp_path: Path, content: bytes = b"weights") -> Path:
    folder = tmp_path / "base"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text("{}")
    return folder


def test_an_adapter_reads_back(tmp_path: Path) -> None:
    base = BaseIdentity.of("base", weights(tmp_path))
    write_adapter(tmp_path / "adapter", PARAMETERS, CONFIG, base, STORES, 3)
    assert is_adapter_folder(tmp_path / "adapter", STORES)
    read = read_adapter(tmp_path / "adapter", STORES)
    assert (read.config, read.base) == (CONFIG, base)
    assert {name: array.tobytes() for name, array in read.parameters.items()} == {
        name: array.tobytes() for name, array in PARAMETERS.items()
    }


def test_the_base_is_told_by_its_weights_alone(tmp_path: Path) -> None:
    base = BaseIdentity.of("base", weights(tmp_path))
    (tmp_path / "base" / "config.json").write_text('{"seq_length": 9}')
    base.require(tmp_path / "base", tmp_path)
    for content in (b"others!", b"longer weights"):
        with pytest.raises(CheckpointError, match="other weights"):
            base.require(weights(tmp_path, content), tmp_path)


def test_without_a_hash_any_base_will_do(tmp_path: Path) -> None:
    """PEFT's own folders have none."""
    BaseIdentity(name="x").require(weights(tmp_path), tmp_path)
    assert BaseIdentity.of(None, None).sha256 is None


def peft_folder(tmp_path: Path, **changes: object) -> Path:
    store, folder = STORES[0], tmp_path / "peft"
    folder.mkdir()
    module = "base_model.model.transformer.encoder.layers.0.self_attention.query_key_value"
    arrays = {
        f"{module}.lora_A.weight": np.ones((2, 3), np.float16),
        f"{module}.lora_B.weight": np.zeros((5, 2), np.float16),
    }
    specs = [TensorSpec(name, DType.FLOAT16, array.shape) for name, array in arrays.items()]
    with store.create(folder / "adapter_model.safetensors", specs) as writer:
        for name, array in arrays.items():
            writer.write(name, array)
    values = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query_key_value"]}
    (folder / "adapter_config.json").write_text(json.dumps(values | changes))
    return folder


def test_what_peft_saved_is_read(tmp_path: Path) -> None:
    read = read_adapter(peft_folder(tmp_path), STORES)
    assert (read.config.rank, read.config.scale, read.config.dropout) == (2, 2.0, 0.0)
    assert {name: array.dtype for name, array in read.parameters.items()} == {
        name: np.dtype(np.float32) for name in PARAMETERS
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "no adapter of a known method"),
        ({"r": "many"}, "not an adapter's configuration"),
        ({"r": None}, "not an adapter's configuration"),
        ({"r": 0}, "out of range"),
        ({"target_modules": ["q_proj"]}, "matches no module"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_adapter(peft_folder(tmp_path, **changes), STORES)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_configuration_is_refused(tmp_path: Path, text: str) -> None:
    folder = peft_folder(tmp_path)
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(ConfigError):
        read_adapter(folder, STORES)

"""Adapters as MindFormers keeps them: read, written, merged and answered with like those of PEFT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm3.adapters.hub.catalog import PublishedModels
from glm3.adapters.hub.http_downloader import HttpDownloader
from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.mindspore.backend import MindSporeBackend
from glm3.adapters.msckpt.store import MindSporeCheckpointStore
from glm3.adapters.safetensors.store import SafetensorsStore
from glm3.adapters.yaml.model_folder import model_folder_yaml
from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.application.adapted_source import find_adapter
from glm3.application.adapter_folder import read_adapter, write_adapter
from glm3.application.base_identity import BaseIdentity
from glm3.application.convert import ConversionRequest
from glm3.application.convert_adapter import convert_any
from glm3.application.load_model import ModelLoader
from glm3.application.merge_adapter import MergeAdapterRequest, merge_adapter
from glm3.application.model_source import ModelSources
from glm3.domain.errors import CheckpointError, ConfigError, MissingFileError, UsageError
from glm3.domain.parameters import to_mindspore_name
from glm3.domain.tensors import Array, DType
from glm3.domain.training.lora import LoRAConfig, adapter_shapes, merge
from glm3.domain.training.run_state import spec_of
from support.models import tiny_config

STORES = [SafetensorsStore(), MindSporeCheckpointStore()]
CONFIG = tiny_config(param_init_type=DType.FLOAT32, padded_vocab_size=268)
LORA = LoRAConfig(rank=3, alpha=7.5, target_modules=("query_key_value", "dense_4h_to_h"))
PROMPT = np.array([[70, 71, 72, 3, 4]], np.int64)


def weights() -> dict[str, Array]:
    return dict(NumpyModel.random(CONFIG, seed=1, scale=0.3).parameters())


def adapter() -> dict[str, Array]:
    generator = np.random.default_rng(2)
    shapes = adapter_shapes(CONFIG, LORA)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def write(path: Path, tensors: Mapping[str, Array]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    store = STORES[path.suffix == ".ckpt"]
    with store.create(path, [spec_of(name, array) for name, array in tensors.items()]) as writer:
        for name, array in tensors.items():
            writer.write(name, array)
    return path


def read(path: Path) -> dict[str, Array]:
    store = STORES[path.suffix == ".ckpt"]
    with store.open(path) as reader:
        return {name: np.array(reader.read(name)) for name in reader.tensors}


def same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    return {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in other.items()}


@pytest.fixture
def sources(tmp_path: Path) -> ModelSources:
    catalog = PublishedModels(tmp_path / "resources", tmp_path / "downloads")
    return ModelSources(catalog, HttpDownloader(offline=True), YamlRunConfigReader())


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    write(folder / "model.safetensors", weights())
    (folder / "config.json").write_text(json.dumps(CONFIG.to_hugging_face()))
    (folder / "tokenizer.model").write_bytes(b"bytes")
    return folder


@pytest.fixture
def folder(tmp_path: Path, base: Path) -> Path:
    """PEFT's folder of the adapter."""
    write_adapter(tmp_path / "adapter", adapter(), LORA, BaseIdentity.of(str(base), base), STORES, 1)
    return tmp_path / "adapter"


def with_yaml(file: Path, **pet_config: Any) -> Path:
    """Put the YAML of a run that trained an adapter beside a file, as MindFormers' users have it."""
    pet = "".join(f"      {key}: {value}\n" for key, value in pet_config.items())
    text = model_folder_yaml(CONFIG.evolve(checkpoint_name_or_path=None)).replace(
        "  model_config:\n", f"  model_config:\n    pet_config:\n{pet}" if pet else "  model_config:\n", 1
    )
    file.with_suffix(".yaml").write_text(text)
    file.with_name("tokenizer.model").write_bytes(b"bytes")
    return file


def whole(path: Path, *, trained: bool = False) -> Path:
    """Write what MindFormers' checkpoint callback does: network, adapter and perhaps optimizer in one."""
    tensors = {to_mindspore_name(name): array for name, array in weights().items()} | adapter()
    if trained:
        tensors |= {f"adam_m.{name}": array for name, array in adapter().items()}
        tensors["step_num"] = np.array(7, np.int64)
    return write(path, tensors)


def loader(sources: ModelSources) -> ModelLoader:
    return ModelLoader(sources, STORES, MindSporeBackend(), lambda _: ByteTokenizer())


def logits(sources: ModelSources, name: Path) -> Array:
    model: Any = loader(sources).load(name).model
    return np.asarray(model.forward(PROMPT))


def convert(sources: ModelSources, source: Path, target: Path, to: str, **more: Any) -> None:
    alpha = more.pop("alpha", None)
    request = ConversionRequest(source=source, target=target, format=to, verify=True, **more)
    assert convert_any(request, sources, STORES, alpha=alpha).verified


@pytest.mark.parametrize(("name", "to"), [("lora.ckpt", "ckpt"), ("lora.safetensors", "safetensors")])
def test_an_adapter_goes_to_mindformers_and_back(
    sources: ModelSources, folder: Path, tmp_path: Path, name: str, to: str
) -> None:
    file = tmp_path / "ms" / name
    file.parent.mkdir()
    convert(sources, folder, file, to)
    assert same(read(file), adapter()), "named as the model card's library names them"
    assert all("mindpet_delta_lora_" in tensor for tensor in read(file))
    convert(sources, file, tmp_path / "back", "hf")
    assert (tmp_path / "back/adapter_config.json").read_bytes() == (
        folder / "adapter_config.json"
    ).read_bytes()
    assert same(read(tmp_path / "back/adapter_model.safetensors"), read(folder / "adapter_model.safetensors"))


def test_a_file_beside_its_configuration_is_as_good_as_a_folder(
    sources: ModelSources, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ms" / "lora.ckpt"
    file.parent.mkdir()
    convert(sources, folder, file, "ckpt")
    expected = logits(sources, folder)
    for name in (file, file.parent):
        np.testing.assert_array_equal(logits(sources, name), expected)
    assert read_adapter(file.parent, STORES).config.scale == LORA.scale


def test_names_of_later_mindformers_and_states_of_training_are_understood(
    sources: ModelSources, tmp_path: Path
) -> None:
    named = {name.replace("mindpet", "tk"): array for name, array in adapter().items()}
    states = {f"adam_v.{name}": array for name, array in named.items()} | {"loss_scale": np.ones(1)}
    found = find_adapter(write(tmp_path / "a.ckpt", named | states), sources, STORES, alpha=7.5)
    assert found is not None
    assert same(found.parameters, adapter())
    assert (found.config.rank, found.config.scale) == (3, LORA.scale)  # type: ignore[union-attr]


def test_without_its_strength_a_file_is_no_adapter(sources: ModelSources, base: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "ms" / "a.ckpt", adapter())
    request = MergeAdapterRequest(adapter=file, target=tmp_path / "merged", base=str(base))
    with pytest.raises(ConfigError, match="how strong") as caught:
        merge_adapter(request, sources, STORES)
    assert "--lora-alpha" in str(caught.value.hint)
    with_yaml(file, pet_type="lora", lora_rank=3, lora_alpha=7.5)
    merge_adapter(request, sources, STORES)


def test_the_yaml_of_the_run_tells_strength_and_base(
    sources: ModelSources, folder: Path, base: Path, tmp_path: Path
) -> None:
    file = with_yaml(write(tmp_path / "ms" / "a.ckpt", adapter()), lora_alpha=7.5)
    yaml = file.with_suffix(".yaml")
    yaml.write_text(
        yaml.read_text().replace(
            "  model_config:\n", f"  model_config:\n    checkpoint_name_or_path: {base}\n", 1
        )
    )
    np.testing.assert_array_equal(logits(sources, file), logits(sources, folder))


def test_an_adapter_of_a_bare_checkpoint_with_a_yaml_beside_it_answers(
    sources: ModelSources, folder: Path, tmp_path: Path
) -> None:
    named = {to_mindspore_name(name): array for name, array in weights().items()}
    file = with_yaml(write(tmp_path / "ms" / "glm3.ckpt", named))
    write_adapter(tmp_path / "other", adapter(), LORA, BaseIdentity.of(str(file), file), STORES, 1)
    np.testing.assert_array_equal(logits(sources, tmp_path / "other"), logits(sources, folder))


@pytest.mark.parametrize("trained", [False, True])
def test_a_checkpoint_of_network_and_adapter_answers_and_merges_as_both(
    sources: ModelSources, folder: Path, tmp_path: Path, trained: bool
) -> None:
    file = with_yaml(whole(tmp_path / "ms" / "all.ckpt", trained=trained), lora_alpha=7.5)
    expected = logits(sources, folder)
    for name in (file, file.parent):
        np.testing.assert_array_equal(logits(sources, name), expected)
    for source, target in ((file, "from-file"), (folder, "from-folder")):
        request = MergeAdapterRequest(adapter=source, target=tmp_path / target, verify=True)
        merge_adapter(request, sources, STORES)
    merged = [read(tmp_path / target / "model.safetensors") for target in ("from-file", "from-folder")]
    assert same(*merged)
    name = "transformer.encoder.layers.1.mlp.dense_4h_to_h.weight"
    a, b = (adapter()[name.replace("weight", f"mindpet_delta_lora_{side}")] for side in "ab")
    np.testing.assert_allclose(merged[0][name], merge(weights()[name], a, b, 2.5), rtol=1e-6)
    np.testing.assert_allclose(logits(sources, tmp_path / "from-file"), expected, atol=2e-4)


def test_an_adapter_is_never_passed_over(sources: ModelSources, tmp_path: Path) -> None:
    file = with_yaml(whole(tmp_path / "ms" / "all.ckpt"))
    with pytest.raises(ConfigError, match="how strong"):
        logits(sources, file)
    (file.parent / "config.json").write_text(json.dumps(CONFIG.to_hugging_face()))
    with pytest.raises(ConfigError, match="how strong"):
        logits(sources, file.parent)


def test_converting_network_and_adapter_loses_neither(sources: ModelSources, tmp_path: Path) -> None:
    file = whole(tmp_path / "ms" / "all.ckpt")
    convert(sources, file, tmp_path / "all.safetensors", "safetensors")
    assert same(read(tmp_path / "all.safetensors"), read(file))


def test_another_base_is_refused_for_a_file_too(
    sources: ModelSources, folder: Path, base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ms" / "lora.ckpt"
    file.parent.mkdir()
    convert(sources, folder, file, "ckpt")
    write(base / "model.safetensors", {name: array * 2 for name, array in weights().items()})
    with pytest.raises(CheckpointError, match="other weights"):
        loader(sources).load(file)


def test_what_is_no_adapter_and_what_makes_none_is_refused(
    sources: ModelSources, folder: Path, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(MissingFileError, match="holds no adapter"):
        merge_adapter(MergeAdapterRequest(adapter=base, target=tmp_path / "x"), sources, STORES)
    with pytest.raises(UsageError, match="no format for adapters"):
        convert(sources, folder, tmp_path / "a.bin", "bin")
    with pytest.raises(UsageError, match="only for the weights"):
        convert(sources, folder, tmp_path / "a.ckpt", "ckpt", dtype=DType.FLOAT16)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="exists already"):
        convert(sources, folder, tmp_path / "a.ckpt", "ckpt")
    assert not (tmp_path / "a.ckpt").exists()

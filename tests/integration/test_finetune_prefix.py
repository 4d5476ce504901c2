"""Finetuning a prefix end to end: what is written can be chatted with, trained further, and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from safetensors.numpy import save_file

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.journal import MemoryJournal
from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.mindspore.backend import MindSporeBackend
from glm3.adapters.torchfile.store import TorchCheckpointStore
from glm3.application.finetune import FinetuneReport, FinetuneRequest, FinetuneService
from glm3.application.load_model import LoadedModel, ModelLoader
from glm3.application.merge_adapter import MergeAdapterRequest, merge_adapter
from glm3.domain.errors import CheckpointError, ConfigError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.training import SupportsPrefix
from glm3.domain.training.prefix import PREFIX_EMBEDDING, PrefixConfig
from glm3.domain.training.run_events import RunStarted, StepDone
from support.finetune import NETWORK, OneModel, run_config, service, weights_in

pytestmark = pytest.mark.slow

PREFIX = {"pet_type": "ptuning2", "pre_seq_len": 4, "dropout_prob": 0.1}
NO_DROPOUT = {"model__model_config__pet_config": {"pet_type": "ptuning2", "pre_seq_len": 4}}
PROMPT = np.array([[70, 71, 72, 73, 3, 4]], np.int64)
ONE_LAYER = NETWORK | {"num_layers": 1}  # graphs compile in seconds that grow with the layers
WIDTH = 2 * 2 * 8  # keys and values, of two heads, of eight channels


def train(folder: Path, output: str, journal: MemoryJournal | None = None, **changes: Any) -> FinetuneReport:
    keys: dict[str, Any] = {
        "lr_schedule__learning_rate": 0.1,
        "runner_config__epochs": 4,
        "model__model_config__pet_config": PREFIX,
        "load_checkpoint": str(folder / "base"),
        "model__model_config__num_layers": 1,
    }
    stop = changes.pop("stop", lambda: False)
    request = FinetuneRequest(config=run_config(folder / output, **keys | changes), stop=stop)
    return trainer_of(folder).run(request, journal or MemoryJournal())


def trainer_of(folder: Path) -> FinetuneService:
    """Return a service that reads PyTorch's files besides."""
    made = service(folder, backend=MindSporeBackend())
    stores = (*made.preparation.stores, TorchCheckpointStore())
    return evolve(made, preparation=evolve(made.preparation, stores=stores))


def loader(folder: Path) -> ModelLoader:
    stores = trainer_of(folder).preparation.stores
    return ModelLoader(OneModel(folder / "base"), stores, MindSporeBackend(), lambda _: ByteTokenizer())


def load(folder: Path, name: Path, **options: Any) -> LoadedModel:
    return loader(folder).load(name, **options)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model ``base`` in it, of random weights, and a run that trained a prefix for it."""
    folder = tmp_path_factory.mktemp("prefix")
    config = ModelConfig.from_mapping(ONE_LAYER)
    parameters = NumpyModel.random(config, seed=1, scale=0.2).parameters()
    (folder / "base").mkdir()
    save_file(parameters, folder / "base" / "model.safetensors")
    (folder / "base" / "config.json").write_text(json.dumps(config.to_hugging_face()))
    (folder / "base" / "tokenizer.model").write_bytes(b"bytes")
    journal = MemoryJournal()
    report = train(folder, "trained", journal)
    assert report.model_folder == folder / "trained" / "adapter"
    losses = [done.report.loss for done in journal.of(StepDone)]
    assert losses[-1] < losses[0] - 0.5
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    return base / "trained" / "adapter"


def test_only_the_prefix_is_written_by_its_official_name(base: Path, adapter: Path) -> None:
    shapes = {name: array.shape for name, array in weights_in(adapter).items()}
    assert shapes == {PREFIX_EMBEDDING: (4, WIDTH)}
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["pre_seq_len"], config["prefix_projection"]) == (4, False)
    assert len(config["base_sha256"]) == 64
    for folder in ("checkpoint", "checkpoint_trainable"):
        saved = next((base / "trained" / folder / "rank_0").glob("*.ckpt"))
        assert saved.stat().st_size < (base / "base" / "model.safetensors").stat().st_size / 3
    assert not (base / "trained" / "checkpoint_network").exists()


def test_its_folder_answers_as_the_base_behind_the_prefix(base: Path, adapter: Path) -> None:
    """By the folder alone, and as an adapter of a base that is named."""
    reference = NumpyModel(ModelConfig.from_mapping(ONE_LAYER), weights_in(base / "base"))
    reference.add_prefix(PrefixConfig(length=4))
    reference.set_adapter_parameters(weights_in(adapter))
    expected = reference.forward(PROMPT)
    for loaded in (load(base, adapter), load(base, base / "base", adapter=adapter)):
        assert isinstance(loaded.model, SupportsPrefix)
        np.testing.assert_allclose(loaded.model.forward(PROMPT), expected, atol=1e-4)
        cache = loaded.model.new_cache(1, 8)
        scores = loaded.model.extend(cache, [0], [PROMPT[0].tolist()])
        np.testing.assert_allclose(scores[0], expected[0, -1], atol=1e-4)


def official(folder: Path, base: Path, arrays: dict[str, Any], **keys: Any) -> Path:
    """Write what ChatGLM's own code saves: its configuration, and tensors in PyTorch's file."""
    folder.mkdir()
    values = json.loads((base / "base" / "config.json").read_text()) | {"pre_seq_len": 4} | keys
    (folder / "config.json").write_text(json.dumps(values))
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("beginning", ["transformer.prefix_encoder.", ""])
def test_what_chatglm_saved_is_loaded(base: Path, adapter: Path, tmp_path: Path, beginning: str) -> None:
    """The prefix alone, under full names or those of the encoder."""
    expected = load(base, adapter).model.forward(PROMPT)
    arrays = {beginning + "embedding.weight": weights_in(adapter)[PREFIX_EMBEDDING]}
    folder = official(tmp_path / "ptuning", base, arrays)
    with pytest.raises(ConfigError, match="does not say what it adapts"):
        load(base, folder)
    named = official(tmp_path / "named", base, arrays, _name_or_path=str(base / "base"))
    for loaded in (load(base, named), load(base, base / "base", adapter=folder)):
        np.testing.assert_array_equal(loaded.model.forward(PROMPT), expected)


def test_a_network_saved_with_its_prefix_is_loaded(base: Path, adapter: Path, tmp_path: Path) -> None:
    expected = load(base, adapter).model.forward(PROMPT)
    whole = official(tmp_path / "whole", base, weights_in(base / "base") | weights_in(adapter))
    (whole / "tokenizer.model").write_bytes(b"bytes")
    np.testing.assert_array_equal(load(base, whole).model.forward(PROMPT), expected)


def test_a_run_goes_on_from_the_folder(base: Path, adapter: Path, tmp_path: Path) -> None:
    """From ours, and from an official one whose base the run's file names."""
    folder = official(tmp_path / "ptuning", base, dict(weights_in(adapter)))
    begun = []
    for number, (start, keys) in enumerate(
        [(adapter, {}), (folder, {"model__model_config__checkpoint_name_or_path": str(base / "base")})]
    ):
        journal = MemoryJournal()
        keys = {**NO_DROPOUT, **keys, "load_checkpoint": str(start), "stop": lambda: True}
        train(base, f"further-{number}", journal, **keys)
        assert journal.of(RunStarted)[0].steps_done == 0
        begun.append(journal.of(StepDone)[0].report.loss)
    metrics = (base / "trained" / "log" / "rank_0" / "metrics.jsonl").read_text().splitlines()
    assert begun[0] == begun[1] < json.loads(metrics[0])["loss"] - 0.5


def test_a_run_resumed_from_a_checkpoint_goes_on_bit_for_bit(base: Path, adapter: Path) -> None:
    """Dropout included."""
    older = sorted((base / "trained" / "checkpoint" / "rank_0").glob("*.ckpt"))[0]
    journal = MemoryJournal()
    resumed = train(base, "again", journal, resume_training=True, load_checkpoint=str(older))
    assert 0 < journal.of(RunStarted)[0].steps_done < resumed.total_steps
    got, wanted = weights_in(resumed.model_folder), weights_in(adapter)
    assert got.keys() == wanted.keys()
    assert all(array.tobytes() == wanted[name].tobytes() for name, array in got.items())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pre_seq_len": 5}, "ptuning2, pre_seq_len 4"),
        ({"prefix_projection": True}, "prefix_projection False"),
        ({"pet_type": "lora", "target_modules": "*"}, "pet_type lora"),
    ],
)
def test_a_run_of_another_shape_does_not_take_the_folder(
    base: Path, adapter: Path, keys: dict[str, Any], message: str
) -> None:
    changed = {"model__model_config__pet_config": PREFIX | keys}
    with pytest.raises(ConfigError, match="does not train this adapter") as caught:
        train(base, "refused", load_checkpoint=str(adapter), **changed)
    assert message in str(caught.value)


def test_another_base_and_a_merge_are_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    parameters = NumpyModel.random(ModelConfig.from_mapping(ONE_LAYER), seed=2).parameters()
    other = tmp_path / "other"
    other.mkdir()
    save_file(parameters, other / "model.safetensors")
    for name in ("config.json", "tokenizer.model"):
        (other / name).write_bytes((base / "base" / name).read_bytes())
    with pytest.raises(CheckpointError, match="other weights"):
        load(base, other, adapter=adapter)
    request = MergeAdapterRequest(adapter=adapter, target=tmp_path / "merged")
    with pytest.raises(ConfigError, match="cannot be folded"):
        merge_adapter(request, OneModel(base / "small"), service(base).preparation.stores)


def test_memory_is_planned_for_the_prefix_alone(base: Path) -> None:
    """Two moments and a gradient for each of its numbers, none for the network's."""
    plans = [
        service(base).preparation.prepare(
            run_config(
                base / "plan",
                load_checkpoint=str(base / "base"),
                model__model_config__num_layers=1,
                **keys,
            )
        )
        for keys in ({"model__model_config__pet_config": PREFIX}, {})
    ]
    assert plans[0].memory.optimizer == 4 * WIDTH * 8
    assert plans[0].memory.gradients < plans[1].memory.gradients
    assert plans[0].memory.weights == plans[1].memory.weights

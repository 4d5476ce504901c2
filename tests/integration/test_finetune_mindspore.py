"""Finetuning on MindSpore end to end: what is written can be loaded, and answers as it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.journal import MemoryJournal
from glm3.adapters.mindspore.backend import MindSporeBackend
from glm3.application.finetune import FinetuneReport, FinetuneRequest
from glm3.application.load_model import LoadedModel, ModelLoader
from glm3.application.merge_adapter import MergeAdapterRequest, merge_adapter
from glm3.domain.errors import CheckpointError, ConfigError
from glm3.domain.ports.training import SupportsLoRA
from glm3.domain.training.run_events import RunStarted, StepDone
from support.finetune import OneModel, run_config, service, weights_in

pytestmark = pytest.mark.slow

LORA = {
    "pet_type": "lora",
    "lora_rank": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "target_modules": ".*query_key_value*",
}
PROMPT = np.array([[70, 71, 72, 73, 3, 4]], np.int64)


def train(folder: Path, output: str, journal: MemoryJournal | None = None, **changes: Any) -> FinetuneReport:
    keys: dict[str, Any] = {"lr_schedule__learning_rate": 0.02, "runner_config__epochs": 4}
    request = FinetuneRequest(config=run_config(folder / output, **keys | changes))
    return service(folder, backend=MindSporeBackend()).run(request, journal or MemoryJournal())


def train_adapter(folder: Path, output: str, journal: MemoryJournal | None = None, **changes: Any) -> Any:
    keys = {"model__model_config__pet_config": LORA, "load_checkpoint": str(folder / "base" / "model")}
    return train(folder, output, journal, **keys | changes)


def load(folder: Path, name: Path) -> LoadedModel:
    made = service(folder)
    loader = ModelLoader(
        OneModel(folder / "small"), made.preparation.stores, MindSporeBackend(), lambda _: ByteTokenizer()
    )
    return loader.load(name)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run ``base`` in it."""
    folder = tmp_path_factory.mktemp("finetune")
    journal = MemoryJournal()
    train(folder, "base", journal)
    losses = [done.report.loss for done in journal.of(StepDone)]
    assert losses[-1] < losses[0] - 1
    return folder


def test_the_finished_model_loads_with_the_bits_that_were_trained(base: Path) -> None:
    loaded = load(base, base / "base" / "model")
    written = weights_in(base / "base" / "model")
    for name, array in loaded.model.parameters().items():
        assert array.tobytes() == written[name].tobytes(), name


def test_an_adapter_is_all_that_is_trained_and_written(base: Path) -> None:
    journal = MemoryJournal()
    report = train_adapter(base, "lora", journal)
    losses = [done.report.loss for done in journal.of(StepDone)]
    assert losses[-1] < losses[0]
    folder = base / "lora" / "adapter"
    assert report.model_folder == folder
    shapes = {name: array.shape for name, array in weights_in(folder).items()}
    module = "base_model.model.transformer.encoder.layers.{}.self_attention.query_key_value"
    assert shapes == {
        f"{module.format(layer)}.lora_{side}.weight": shape
        for layer in (0, 1)
        for side, shape in (("A", (4, 24)), ("B", (64, 4)))
    }
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (4, 8, ["query_key_value"])
    assert len(config["base_sha256"]) == 64
    checkpoint = next((base / "lora" / "checkpoint" / "rank_0").glob("*.ckpt"))
    network = next((base / "base" / "checkpoint" / "rank_0").glob("*.ckpt"))
    assert checkpoint.stat().st_size < network.stat().st_size / 3


def test_an_adapter_folder_answers_as_its_base_with_the_adapter(base: Path) -> None:
    report = train_adapter(base, "answers")
    plain = load(base, base / "base" / "model").model
    before = plain.forward(PROMPT)
    adapted = load(base, report.model_folder).model
    assert isinstance(adapted, SupportsLoRA)
    after = adapted.forward(PROMPT)
    assert np.abs(after - before).max() > 1e-3
    adapted.merge_lora()
    np.testing.assert_allclose(adapted.forward(PROMPT), after, atol=1e-4)


def test_a_killed_adapter_run_goes_on_bit_for_bit(base: Path) -> None:
    """Dropout included."""
    straight = train_adapter(base, "straight")
    stopped = MemoryJournal()
    keys: dict[str, Any] = {
        "lr_schedule__learning_rate": 0.02,
        "runner_config__epochs": 4,
        "model__model_config__pet_config": LORA,
    }
    config = run_config(base / "again", load_checkpoint=str(base / "base" / "model"), **keys)
    request = FinetuneRequest(config=config, stop=lambda: len(stopped.of(StepDone)) == 5)
    service(base, backend=MindSporeBackend()).run(request, stopped)
    resumed = train_adapter(base, "again", resume_training=True, load_checkpoint="last")
    wanted, got = weights_in(straight.model_folder), weights_in(resumed.model_folder)
    assert {name: array.tobytes() for name, array in got.items()} == {
        name: array.tobytes() for name, array in wanted.items()
    }


def test_an_adapter_is_trained_further_from_its_folder(base: Path) -> None:
    first = train_adapter(base, "one")
    journal = MemoryJournal()
    train_adapter(base, "two", journal, load_checkpoint=str(first.model_folder))
    assert journal.of(RunStarted)[0].steps_done == 0
    assert first.loop.first_loss is not None
    assert journal.of(StepDone)[0].report.loss < first.loop.first_loss


def test_what_an_adapter_run_saves_on_its_way_is_an_adapter_too(base: Path) -> None:
    """In MindFormers' form: a file with its configuration beside it, to answer with and to train further."""
    report = train_adapter(base, "saved")
    expected = load(base, report.model_folder).model.forward(PROMPT)
    trained = base / "saved" / "checkpoint_trainable" / "rank_0"
    np.testing.assert_array_equal(load(base, trained).model.forward(PROMPT), expected)
    checkpoint = base / "saved" / "checkpoint" / "rank_0"
    np.testing.assert_array_equal(load(base, report.checkpoint).model.forward(PROMPT), expected)
    for number, start in enumerate((trained, checkpoint, report.checkpoint)):
        journal = MemoryJournal()
        train_adapter(base, f"further-{number}", journal, load_checkpoint=str(start))
        assert report.loop.last_loss is not None
        assert journal.of(StepDone)[0].report.loss < report.loop.first_loss


def test_an_adapter_of_another_rank_or_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    first = train_adapter(base, "ranked")
    with pytest.raises(ConfigError, match="lora_rank 4"):
        train_adapter(
            base,
            "refused",
            load_checkpoint=str(first.model_folder),
            model__model_config__pet_config=LORA | {"lora_rank": 2},
        )
    config = first.model_folder / "adapter_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"base_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="other weights"):
        load(base, first.model_folder)


@pytest.mark.parametrize(("target", "to"), [("merged", "hf"), ("merged.safetensors", "safetensors")])
def test_a_merged_adapter_answers_as_the_adapter_did(
    base: Path, tmp_path: Path, target: str, to: str
) -> None:
    folder = train_adapter(base, f"merge-{to}").model_folder
    stores = service(base).preparation.stores
    request = MergeAdapterRequest(adapter=folder, target=tmp_path / target, format=to, verify=True)
    result = merge_adapter(request, OneModel(base / "small"), stores)
    assert result.verified
    assert "2 matrices changed" in result.notes
    merged, plain = weights_in(tmp_path / target), weights_in(base / "base" / "model")
    changed = {name for name, array in plain.items() if merged.get(name, array).tobytes() != array.tobytes()}
    assert changed == {
        f"transformer.encoder.layers.{layer}.self_attention.query_key_value.weight" for layer in (0, 1)
    }
    if to == "hf":
        adapted = load(base, folder).model.forward(PROMPT)
        np.testing.assert_allclose(load(base, tmp_path / target).model.forward(PROMPT), adapted, atol=1e-4)


def test_an_adapter_is_not_merged_into_other_weights(base: Path, tmp_path: Path) -> None:
    folder = train_adapter(base, "merge-other").model_folder
    other = train(base, "other-base", runner_config__epochs=1).model_folder
    stores = service(base).preparation.stores
    request = MergeAdapterRequest(adapter=folder, target=tmp_path / "merged", base=str(other))
    with pytest.raises(CheckpointError, match="trained on other weights"):
        merge_adapter(request, OneModel(base / "small"), stores)
    assert not (tmp_path / "merged").exists()

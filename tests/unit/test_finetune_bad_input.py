"""Whatever is wrong with a run is said before weights are loaded, or at the very step that shows it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.host import FakeHost, healthy_facts
from glm3.adapters.memory.journal import MemoryJournal
from glm3.adapters.memory.numpy_backend import NumpyBackend
from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.msckpt.store import MindSporeCheckpointStore
from glm3.application import training_checks
from glm3.application.finetune import FinetuneRequest
from glm3.application.training_result import write_model_folder
from glm3.domain.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    Glm3Error,
    InvalidInputError,
    MissingFileError,
    MultipleFaultsError,
    ParameterMismatchError,
    StorageError,
    TokenizerError,
    TrainingError,
)
from glm3.domain.model_config import ModelConfig
from glm3.domain.training.rows import PairRow
from glm3.domain.training.run_events import RunFailed, StepDone
from support.finetune import NETWORK, SOURCE, TARGET, open_pairs, run_config, service


class Untouchable:
    """A backend that must not be asked to load anything."""

    def load(self, *_: object) -> NumpyModel:
        raise AssertionError("weights were loaded before everything was checked")


def refused(tmp_path: Path, error: type[Glm3Error], parts: dict | None = None, **changes: object) -> str:
    """Run, and return what the run says when it is refused before anything is loaded or written."""
    with pytest.raises(error) as caught:
        service(tmp_path, backend=Untouchable(), **(parts or {})).run(
            FinetuneRequest(config=run_config(tmp_path / "output", **changes)), MemoryJournal()
        )
    assert not (tmp_path / "output" / "checkpoint").exists()
    return str(caught.value)


def test_a_sequence_of_another_length_than_its_rows_is_explained(tmp_path: Path) -> None:
    said = refused(tmp_path, MultipleFaultsError, model__model_config__seq_length=192)
    assert f"max_source_length {SOURCE} + max_target_length {TARGET} + 1" in said


def test_a_tokenizer_with_more_ids_than_rows_is_refused(tmp_path: Path) -> None:
    class Larger(ByteTokenizer):
        def __init__(self) -> None:
            super().__init__()
            self._special = type(self._special)(5000)

    said = refused(tmp_path, TokenizerError, {"load_tokenizer": lambda _: Larger()})
    assert "padded_vocab_size is 268" in said


def test_a_tokenizer_with_far_fewer_ids_than_rows_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, TokenizerError, model__model_config__padded_vocab_size=5000)
    assert "268 ids" in said


def test_a_tokenizer_file_that_is_not_the_models_own_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.model"
    other.write_bytes(b"other")
    said = refused(tmp_path, TokenizerError, train_dataset__tokenizer={"vocab_file": str(other)})
    assert "not the tokenizer of the model" in said


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    said = refused(tmp_path, MissingFileError, train_dataset__tokenizer={"vocab_file": "nowhere.model"})
    assert "nowhere.model" in said


def test_a_checkpoint_of_another_shape_is_refused_with_every_difference(tmp_path: Path) -> None:
    folder = tmp_path / "wider"
    wider = ModelConfig.from_mapping(NETWORK | {"hidden_size": 32})
    stores = service(tmp_path).preparation.stores
    write_model_folder(folder, NumpyModel.random(wider, 0).parameters(), {}, stores, 0)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.model").write_bytes(b"bytes")
    said = refused(tmp_path, ParameterMismatchError, load_checkpoint=str(folder))
    assert "expected (268, 24), found (268, 32)" in said


def test_a_disk_too_small_for_the_checkpoints_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_checks, "free_bytes", lambda _: 1000)
    said = refused(tmp_path, StorageError)
    assert "keep_checkpoint_max" in said


def test_a_machine_too_small_is_refused_with_figures_and_a_knob(tmp_path: Path) -> None:
    host = FakeHost(evolve(healthy_facts(), memory_available=10**8))
    said = refused(tmp_path, BackendError, {"host": host})
    assert "weights" in said
    assert "0.10 GB" in said
    assert "batch_size" in said


def test_an_absent_ascend_is_said_at_once(tmp_path: Path) -> None:
    said = refused(tmp_path, BackendError, context__device_target="Ascend")
    assert "context.device_target=CPU" in said


def test_a_resumption_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, MissingFileError, resume_training=True, load_checkpoint="last")


def trained(tmp_path: Path, output: str = "output", **changes: object) -> Path:
    config = run_config(tmp_path / output, **changes)
    service(tmp_path).run(FinetuneRequest(config=config), MemoryJournal())
    return tmp_path / output


def test_weights_alone_cannot_be_resumed(tmp_path: Path) -> None:
    network = trained(tmp_path, "first") / "checkpoint_network" / "rank_0" / "small_rank_0-network.ckpt"
    said = refused(tmp_path, CheckpointError, resume_training=True, load_checkpoint=str(network))
    assert "resume_training: False" in said


def test_a_resumption_on_other_rows_is_refused(tmp_path: Path) -> None:
    folder = trained(tmp_path, "first") / "checkpoint"
    said = refused(
        tmp_path,
        ConfigError,
        {"open_rows": lambda request: open_pairs(request, [PairRow("a", "b")] * 8)},
        resume_training=True,
        load_checkpoint=str(folder),
        runner_config__epochs=9,
    )
    assert "num_rows 12" in said
    assert "num_rows 8" in said


def test_a_complete_run_cannot_be_resumed(tmp_path: Path) -> None:
    folder = trained(tmp_path, "first") / "checkpoint"
    said = refused(tmp_path, ConfigError, resume_training=True, load_checkpoint=str(folder))
    assert "complete already" in said


def test_rows_that_cannot_be_read_stop_the_run_first(tmp_path: Path) -> None:
    def unreadable(_: object) -> None:
        raise InvalidInputError("not a JSON object", path="rows.jsonl", line=3)

    assert "rows.jsonl:3" in refused(tmp_path, InvalidInputError, {"open_rows": unreadable})


def stopped_at(
    tmp_path: Path, pairs: list[PairRow], spoil: Callable[[NumpyModel], None] | None = None
) -> tuple:
    class Backend(NumpyBackend):
        def load(self, *arguments: object) -> NumpyModel:
            model = super().load(*arguments)
            if spoil is not None:
                spoil(model)
            return model

    journal = MemoryJournal()
    config = run_config(tmp_path / "output", train_dataset__data_loader__shuffle=False)
    with pytest.raises(TrainingError) as caught:
        service(tmp_path, backend=Backend(), open_rows=lambda request: open_pairs(request, pairs)).run(
            FinetuneRequest(config=config), journal
        )
    assert journal.closed
    assert len(journal.of(RunFailed)) == 1
    return caught.value, journal


def test_a_batch_without_a_supervised_token_stops_at_its_step_and_names_its_rows(tmp_path: Path) -> None:
    pairs = [PairRow("a", "b")] * 8

    def masked_rows(request: object) -> object:
        rows = open_pairs(request, pairs)
        original = type(rows).micro_batches

        class Masked(type(rows)):
            def micro_batches(self, step: int) -> list:
                batches = original(self, step)
                if step == 1:
                    for batch in batches:
                        batch.targets[...] = -100
                return batches

        return Masked(rows.encoder, rows.order, rows.rows_per_pass, pairs)

    journal = MemoryJournal()
    config = run_config(tmp_path / "output", train_dataset__data_loader__shuffle=False)
    with pytest.raises(TrainingError) as caught:
        service(tmp_path, open_rows=masked_rows).run(FinetuneRequest(config=config), journal)
    assert len(journal.of(StepDone)) == 1
    assert (caught.value.path, caught.value.line) == (Path("rows.jsonl"), 5)
    assert "step 2" in str(caught.value)


def test_a_loss_of_nan_stops_at_its_step_with_the_advice_of_the_model_card(tmp_path: Path) -> None:
    def spoil(model: NumpyModel) -> None:
        name = "transformer.encoder.final_layernorm.weight"
        model.replace({name: np.full_like(model.parameters()[name], np.nan)})

    error, journal = stopped_at(tmp_path, [PairRow("a", "b")] * 8, spoil)
    assert "MS_ASCEND_CHECK_OVERFLOW_MODE" in str(error)
    assert "rows.jsonl:1, rows.jsonl:2" in str(error)
    assert len(journal.of(StepDone)) == 1
    assert not list((tmp_path / "output" / "checkpoint" / "rank_0").glob("*.ckpt"))


def test_a_disk_that_fills_up_keeps_every_earlier_checkpoint(tmp_path: Path) -> None:
    full = 0

    class Full(MindSporeCheckpointStore):
        def create(self, path: Path, *arguments: object) -> object:
            nonlocal full
            full += 1
            if full > 2:
                raise StorageError("cannot be written", path=path) from OSError(errno.ENOSPC, "full")
            return super().create(path, *arguments)

    made = service(tmp_path)
    stores = [made.preparation.stores[0], Full()]
    with pytest.raises(StorageError):
        service(tmp_path, stores=stores).run(
            FinetuneRequest(config=run_config(tmp_path / "output")), MemoryJournal()
        )
    folder = tmp_path / "output" / "checkpoint" / "rank_0"
    assert [path.name for path in folder.glob("*.ckpt")] == ["small_rank_0-1_2.ckpt"]
    assert (folder / "last").read_text() == "small_rank_0-1_2.ckpt\n"
    assert "cannot be written" in (tmp_path / "output" / "log" / "rank_0" / "error.log").read_text()

"""A finetuning service over memory adapters, and what its tests look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from glm3.adapters.journal.files import FileJournal
from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.host import FakeHost
from glm3.adapters.memory.journal import MemoryJournal
from glm3.adapters.memory.numpy_backend import NumpyBackend
from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.adapters.msckpt.store import MindSporeCheckpointStore
from glm3.adapters.safetensors.store import SafetensorsStore
from glm3.adapters.strategy.store import FileStrategyStore
from glm3.application.finetune import FinetuneReport, FinetuneRequest, FinetuneService
from glm3.application.model_source import ModelSource
from glm3.application.row_sources import Pairs, RowsRequest
from glm3.application.training_preparation import TrainingPreparation
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.backend import ModelBackend
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.training import MicroBatch
from glm3.domain.run_config import RunConfig, build_run_config
from glm3.domain.run_config.tree import Node
from glm3.domain.tensors import Array
from glm3.domain.training.encoding import PairEncoder
from glm3.domain.training.rows import PairRow
from glm3.domain.training.run_guard import RowPlace
from glm3.domain.training.sampling_order import SamplingOrder

PAIRS = [PairRow(f"color {i % 3}", f"it is {['red', 'green', 'blue'][i % 3]}") for i in range(12)]
SOURCE, TARGET = 12, 19

NETWORK: dict[str, Any] = {
    "num_layers": 2,
    "padded_vocab_size": 268,
    "hidden_size": 24,
    "ffn_hidden_size": 40,
    "kv_channels": 8,
    "num_attention_heads": 4,
    "multi_query_group_num": 2,
    "seq_length": SOURCE + TARGET + 1,
    "param_init_type": "float32",
    "compute_dtype": "float32",
}


@frozen
class PairRows:
    """Encoded pairs in memory, cut into batches as a run's configuration says."""

    encoder: PairEncoder
    order: SamplingOrder
    rows_per_pass: int
    pairs: Sequence[PairRow]
    path: Path = Path("rows.jsonl")
    notes: Sequence[str] = ()

    @property
    def num_rows(self) -> int:
        return len(self.pairs)

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    def micro_batches(self, step: int) -> list[MicroBatch]:
        rows = [self.encoder.encode(self.pairs[index]) for index in self.order.rows(step)]
        cuts = range(0, len(rows), self.rows_per_pass)
        return [
            MicroBatch(
                np.stack([row.input_ids for row in rows[cut : cut + self.rows_per_pass]]),
                np.stack([row.targets for row in rows[cut : cut + self.rows_per_pass]]),
            )
            for cut in cuts
        ]

    def places(self, step: int) -> list[RowPlace]:
        return [RowPlace(self.path, int(index) + 1) for index in self.order.rows(step)]


def open_pairs(request: RowsRequest, pairs: Sequence[PairRow] = PAIRS) -> PairRows:
    dataset = request.dataset
    rank, ranks = request.share
    return PairRows(
        PairEncoder(request.tokenizer, dataset.max_source_length, dataset.max_target_length),
        SamplingOrder(
            num_rows=len(pairs),
            global_batch=request.batch.global_batch,
            seed=dataset.seed,
            shuffle=dataset.data_loader.shuffle,
            drop_remainder=dataset.drop_remainder,
            rank=rank,
            world_size=ranks,
        ),
        request.batch.rows_per_pass,
        pairs,
    )


def exact_share(predictions: Sequence[str], references: Sequence[str]) -> float:
    return 100 * sum(map(str.__eq__, predictions, references)) / len(references)


class OneModel:
    """Model sources that know one model, ``small``: random weights of :data:`NETWORK` and a tokenizer."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = folder / "tokenizer.model"
        if not self.tokenizer.is_file():
            self.tokenizer.write_bytes(b"bytes")

    def names(self) -> list[str]:
        return ["small"]

    def resolve(self, name: str, **_: object) -> ModelSource:
        if name == "small":
            config = ModelConfig.from_mapping(NETWORK)
            return ModelSource(name="small", config=config, weights=None, tokenizer=self.tokenizer)
        folder = Path(name)
        config = ModelConfig.from_mapping(json.loads((folder / "config.json").read_text()))
        return ModelSource(name=name, config=config, weights=folder, tokenizer=folder / "tokenizer.model")


def run_config(output: Path, **changes: Any) -> RunConfig:
    """Return a run on :data:`PAIRS`; ``changes`` replace keys, dots written as two underscores."""
    dataset = {
        "data_loader": {"type": "ADGenDataLoader", "dataset_dir": "rows.jsonl"},
        "max_source_length": SOURCE,
        "max_target_length": TARGET,
    }
    tree: dict[str, Any] = {
        "run_mode": "finetune",
        "output_dir": str(output),
        "load_checkpoint": "small",
        "context": {"device_target": "CPU"},
        "model": {"model_config": {**NETWORK, "type": "ChatGLM2Config"}},
        "train_dataset": dataset,
        "eval_dataset": dataset,
        "runner_config": {"epochs": 2, "batch_size": 4, "sink_mode": False},
        "runner_wrapper": {"use_clip_grad": True},
        "lr_schedule": {"type": "polynomial", "learning_rate": 0.05, "lr_end": 0.001},
        "optimizer": {"type": "AdamW", "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1},
        "callbacks": [
            {
                "type": "CheckpointMonitor",
                "prefix": "small",
                "save_checkpoint_steps": 2,
                "keep_checkpoint_max": 2,
            }
        ],
    }
    for name, value in changes.items():
        keys = name.split("__")
        place: Any = tree
        for key in keys[:-1]:
            place = place[int(key)] if key.isdigit() else place.setdefault(key, {})
        place[keys[-1]] = value
    return build_run_config(_node(tree), "the test's run")


def service(folder: Path, *, backend: ModelBackend | None = None, **preparation: Any) -> FinetuneService:
    """Return the service over memory adapters and real files; keywords replace parts of its preparation."""
    parts: dict[str, Any] = {
        "sources": OneModel(folder / "small"),
        "stores": [SafetensorsStore(), MindSporeCheckpointStore()],
        "strategies": FileStrategyStore(),
        "load_tokenizer": lambda _: ByteTokenizer(),
        "open_rows": open_pairs,
        "open_pairs": lambda dataset, strict: Pairs(PAIRS[:3]),
        "score_texts": lambda predictions, references: {"rouge-l": exact_share(predictions, references)},
        "communicator": SingleProcessCommunicator(),
        "host": FakeHost(),
        **preparation,
    }
    return FinetuneService(
        preparation=TrainingPreparation(**parts),
        backend=backend or NumpyBackend(),
        communicator=parts["communicator"],
        strategies=FileStrategyStore(),
        open_journal=lambda place, sink: FileJournal(
            place, sink=sink, metrics=parts["communicator"].rank == 0
        ),
        model_yaml=lambda _: b"model: {}\n",
        peak_memory=lambda: 10**9,
    )


def train_on_mindspore(
    folder: Path, output: str, communicator: Communicator | None = None, **changes: Any
) -> FinetuneReport:
    """Train 24 steps of :data:`NETWORK` on MindSpore, with accumulation, saving every 4 of them."""
    from glm3.adapters.mindspore.backend import MindSporeBackend

    keys = {
        "runner_config__epochs": 12,
        "runner_config__batch_size": 3,
        "runner_config__gradient_accumulation_steps": 2,
        "lr_schedule__learning_rate": 0.01,
        "callbacks__0__save_checkpoint_steps": 4,
    }
    config = run_config(folder / output, **keys | changes)
    parts = service(
        folder, backend=MindSporeBackend(), communicator=communicator or SingleProcessCommunicator()
    )
    return parts.run(FinetuneRequest(config=config), MemoryJournal())


def weights_in(folder: Path) -> dict[str, Array]:
    """Return the tensors of a model folder."""
    with SafetensorsStore().open(folder) as reader:
        return {name: np.array(reader.read(name)) for name in reader.tensors}


def _node(value: Any) -> Node:
    if isinstance(value, dict):
        return Node({key: _node(child) for key, child in value.items()})
    if isinstance(value, list):
        return Node([_node(child) for child in value])
    return Node(value)

"""Puts the parts together: rows, tokenizer, network, training, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from attrs import frozen
from tools.tiny_model.adverts import Advert
from tools.tiny_model.corpus import (
    bundled_rows,
    held_back_adverts,
    tokenizer_texts,
    training_rows,
    write_rows,
)
from tools.tiny_model.encoding import encode_row
from tools.tiny_model.train import OPTIONS, TrainingPlan, train

from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.adapters.safetensors.store import SafetensorsStore
from glm3.adapters.sentencepiece.tokenizer import SentencePieceTokenizer
from glm3.adapters.sentencepiece.train import train_tokenizer
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import OUTPUT_LAYER
from glm3.domain.tensors import DType, TensorSpec, from_float32

__all__ = ["Paths", "build"]

Report = Callable[[str], None]

_SEED = 20240301
_ROWS, _ROWS_FOR_TOKENIZER = 110_000, 12_000
_PIECES = 2500
_BUNDLED_TRAIN, _BUNDLED_DEV, _HELD_BACK = 600, 60, 30
# At this width the usual 0.02 learns late to copy words from the prompt: after 3.5 minutes of training
# 20% of held-back attributes appeared in the text, and 70% with 0.06 and equal embedding and output rows.
_INITIAL_SCALE = 0.06


@frozen
class Paths:
    """Where the files go."""

    model: Path
    rows: Path
    held_back: Path


def build(paths: Paths, plan: TrainingPlan, kernels: Path | None, report: Report) -> float:
    """Make every file of the embedded model and return the last loss.

    ``kernels`` is the library of fused kernels, None for the stock operators.
    """
    rows = training_rows(_SEED, _ROWS)
    bundled, evaluation = bundled_rows(_SEED, _BUNDLED_TRAIN, _BUNDLED_DEV)
    write_rows(paths.rows / "adverts-train.json", bundled)
    write_rows(paths.rows / "adverts-dev.json", evaluation)
    write_rows(paths.held_back, held_back_adverts(_SEED, _HELD_BACK))
    tokenizer = _make_tokenizer(paths.model / "tokenizer.model", bundled)
    config = _config(tokenizer)
    report(f"{len(rows)} rows, {tokenizer.special_tokens.vocab_size} ids")
    network = _make_network(config, kernels)
    from glm3.adapters.mindspore.training.trainer import MindSporeTrainer

    trainer = MindSporeTrainer(network, OPTIONS, SingleProcessCommunicator())
    loss = train(trainer, [encode_row(tokenizer, row) for row in rows], plan, report)
    _save(paths.model, config, trainer.parameters())
    return loss


def _make_tokenizer(path: Path, bundled: Sequence[Advert]) -> SentencePieceTokenizer:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = training_rows(_SEED, _ROWS_FOR_TOKENIZER, strange_words=False)
    texts = chain(tokenizer_texts(rows), tokenizer_texts(bundled))
    return train_tokenizer(texts, path, _PIECES)


def _config(tokenizer: SentencePieceTokenizer) -> ModelConfig:
    return ModelConfig(
        num_layers=5,
        padded_vocab_size=-(-tokenizer.special_tokens.vocab_size // 64) * 64,
        hidden_size=192,
        ffn_hidden_size=512,
        kv_channels=32,
        num_attention_heads=6,
        multi_query_group_num=2,
        seq_length=512,
        param_init_type=DType.FLOAT16,
    )


def _make_network(config: ModelConfig, kernels: Path | None) -> Any:
    import mindspore as ms

    from glm3.adapters.mindspore.kernels.base import HeadLayout
    from glm3.adapters.mindspore.kernels.cpu import CpuKernels
    from glm3.adapters.mindspore.kernels.stock import StockKernels
    from glm3.adapters.mindspore.network import ChatGLMNetwork

    layout = HeadLayout.of(config)
    chosen = StockKernels(layout) if kernels is None else CpuKernels(layout, kernels)
    network = ChatGLMNetwork(config, chosen)
    network.initialize(_SEED, _INITIAL_SCALE)
    # Equal rows of embedding and output at the start: what attention copies is named at once.
    output = next(p for p in network.get_parameters() if p.name == OUTPUT_LAYER)
    output.set_data(ms.Tensor(network.word_embeddings.asnumpy().copy()))
    return network


def _save(folder: Path, config: ModelConfig, parameters: Any) -> None:
    specs = [TensorSpec(name, DType.FLOAT16, array.shape) for name, array in parameters.items()]
    with SafetensorsStore().create(folder / "model.safetensors", specs, {"format": "pt"}) as writer:
        for name, array in parameters.items():
            writer.write(name, from_float32(array, DType.FLOAT16))
    values = json.dumps(config.to_hugging_face(), indent=2) + "\n"
    (folder / "config.json").write_text(values, encoding="utf-8")

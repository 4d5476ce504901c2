"""Checkpoints of many ranks, cut from complete tensors by plain indexing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm3.adapters.msckpt import MindSporeCheckpointStore
from glm3.adapters.safetensors import SafetensorsStore
from glm3.domain.layout.network_cut import NetworkCut, cut_network
from glm3.domain.layout.strategy import JobStrategy
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import from_mindspore_name, parameter_shapes, to_mindspore_name
from glm3.domain.tensors import Array, DType, TensorSpec
from support.tensors import numbers, save

STORES = [SafetensorsStore(), MindSporeCheckpointStore()]

CONFIG = ModelConfig(
    num_layers=3,
    padded_vocab_size=96,
    hidden_size=16,
    ffn_hidden_size=24,
    kv_channels=4,
    num_attention_heads=4,
    multi_query_group_num=2,
)

Tensors = dict[TensorSpec, Array]


def network(dtype: DType = DType.FLOAT16, *, state: bool = True, seed: int = 0) -> Tensors:
    """Return a small network's tensors as a training checkpoint holds them, counters last."""
    shapes = {to_mindspore_name(name): shape for name, shape in parameter_shapes(CONFIG).items()}
    specs = [TensorSpec(name, dtype, shape) for name, shape in shapes.items()]
    if state:
        specs += [
            TensorSpec(kind + name, DType.FLOAT32, shape)
            for kind in ("adam_m.", "adam_v.")
            for name, shape in shapes.items()
        ]
    arrays = {spec: numbers(spec, seed) for spec in specs}
    if state:
        for name, value in (("epoch_num", 1), ("step_num", 7), ("loss_scale", 65536)):
            arrays[TensorSpec(name, DType.INT64, ())] = np.asarray(value, np.int64)
    return arrays


def strategy(
    data_parallel: int = 2, model_parallel: int = 1, pipeline_stage: int = 1, *, optimizer: bool = True
) -> JobStrategy:
    """Return the cut of the small network's weights."""
    cut = NetworkCut(
        data_parallel=data_parallel,
        model_parallel=model_parallel,
        pipeline_stage=pipeline_stage,
        optimizer_parallel=optimizer,
        optimizer_threshold=0,
    )
    return cut_network({from_mindspore_name(n): s for n, s in parameter_shapes(CONFIG).items()}, cut)


def slice_of(tensors: Mapping[TensorSpec, Array], job: JobStrategy, rank: int) -> Tensors:
    """Return what one rank of a job holds."""
    held: Tensors = {}
    for spec, array in tensors.items():
        box = job.slices(spec.name, spec.shape, rank)
        if box is not None:
            part = array[box].copy()
            held[TensorSpec(spec.name, spec.dtype, part.shape)] = part
    return held


def save_ranks(
    folder: Path,
    tensors: Mapping[TensorSpec, Array],
    job: JobStrategy,
    name: str = "glm3_rank_{rank}-3_1.ckpt",
) -> Path:
    """Write one file a rank, as a training run lays them out."""
    for rank in range(job.num_ranks):
        path = folder / f"rank_{rank}" / name.format(rank=rank)
        save(store_for(path), path, slice_of(tensors, job, rank))
    return folder


def store_for(path: Path) -> SafetensorsStore | MindSporeCheckpointStore:
    return next(store for store in STORES if path.name.endswith(store.format))

"""Tensors for checkpoint tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.tensors import Array, DType, TensorSpec

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)

SPECS = st.lists(
    st.builds(
        TensorSpec,
        NAMES,
        st.sampled_from(list(DType)),
        st.lists(st.integers(0, 5), max_size=3).map(tuple),
    ),
    max_size=6,
    unique_by=lambda spec: spec.name,
)


def numbers(spec: TensorSpec, seed: int = 0) -> Array:
    """Return random bits, so that NaN, infinities and subnormals occur."""
    rng = np.random.default_rng([seed, *spec.name.encode()])
    if spec.dtype is DType.BOOL:
        return rng.integers(0, 2, spec.shape).astype(bool)
    return np.frombuffer(rng.bytes(spec.nbytes), spec.dtype.carrier).reshape(spec.shape)


def save(
    store: CheckpointStore, path: Path, arrays: Mapping[TensorSpec, Array], **options: Mapping[str, str]
) -> None:
    with store.create(path, list(arrays), **options) as writer:
        for spec, array in arrays.items():
            writer.write(spec.name, array)


def load(store: CheckpointStore, path: Path) -> dict[str, tuple[DType, tuple[int, ...], bytes]]:
    """Return everything a checkpoint holds, comparable bit by bit."""
    with store.open(path) as reader:
        return {
            name: (spec.dtype, spec.shape, reader.read(name).tobytes())
            for name, spec in reader.tensors.items()
        }


def bits(arrays: Mapping[TensorSpec, Array]) -> dict[str, tuple[DType, tuple[int, ...], bytes]]:
    """Return what :func:`load` returns for a checkpoint of these."""
    return {spec.name: (spec.dtype, spec.shape, array.tobytes()) for spec, array in arrays.items()}


def some_tensors(seed: int = 0) -> dict[TensorSpec, Array]:
    """Return tensors of several dtypes, ranks and sizes."""
    specs: Sequence[TensorSpec] = [
        TensorSpec("embedding", DType.FLOAT16, (9, 4)),
        TensorSpec("norm", DType.FLOAT32, (4,)),
        TensorSpec("projection", DType.BFLOAT16, (5, 7)),
        TensorSpec("global_step", DType.INT64, ()),
        TensorSpec("mask", DType.BOOL, (3, 2)),
    ]
    return {spec: numbers(spec, seed) for spec in specs}

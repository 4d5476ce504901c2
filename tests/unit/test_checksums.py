"""Checksums beside checkpoints."""

from __future__ import annotations

import zlib

import pytest

from glm3.adapters.memory.checkpoint_store import MemoryCheckpointStore
from glm3.adapters.msckpt import MindSporeCheckpointStore
from glm3.domain.checksums import (
    checksum_file,
    drop_checksums,
    read_checksums,
    tensor_crc32,
    write_checksums,
)
from glm3.domain.errors import CheckpointError
from glm3.domain.tensors import SLAB_BYTES, DType, TensorSpec, row_slabs
from support.tensors import numbers, save, some_tensors


def test_a_tensor_has_the_same_checksum_in_every_store(tmp_path):
    big, empty = TensorSpec("big", DType.UINT8, (3, SLAB_BYTES)), TensorSpec("empty", DType.INT8, (0, 3))
    tensors = {**some_tensors(), big: numbers(big), empty: numbers(empty)}
    for store in (MemoryCheckpointStore(), MindSporeCheckpointStore(piece_bytes=5 << 20)):
        save(store, tmp_path / "m.ckpt", tensors)
        with store.open(tmp_path / "m.ckpt") as reader:
            for spec, array in tensors.items():
                assert tensor_crc32(reader, spec.name) == zlib.crc32(array.tobytes())


def test_slabs_cover_every_row_once():
    for shape, limit in (((10, 3), 7), ((10, 3), 1), ((10, 3), 30), ((), 0), ((0, 4), 0)):
        slabs = list(row_slabs(TensorSpec("w", DType.INT8, shape), limit))
        if slabs != [None]:
            assert [row for slab in slabs for row in range(slab.start, slab.stop)] == list(range(shape[0]))


def test_they_come_back_as_written(tmp_path):
    file = tmp_path / "m.ckpt"
    file.write_bytes(b"12345")
    assert read_checksums(file) is None
    write_checksums(file, {"权重": 7, "b": 0xFFFFFFFF})
    assert read_checksums(file) == {"权重": 7, "b": 0xFFFFFFFF}
    drop_checksums(file)
    drop_checksums(file)
    assert read_checksums(file) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"bytes": 5, "crc32": []}', b'{"bytes": 5, "crc32": {"a": "xyz"}}', b"\xff"],
)
def test_damaged_ones_are_an_error(tmp_path, content):
    file = tmp_path / "m.ckpt"
    file.write_bytes(b"12345")
    checksum_file(file).write_bytes(content)
    with pytest.raises(CheckpointError, match="not a file of checksums"):
        read_checksums(file)


def test_those_of_a_file_of_another_size_are_an_error(tmp_path):
    file = tmp_path / "m.ckpt"
    file.write_bytes(b"12345")
    write_checksums(file, {"a": 1})
    file.write_bytes(b"1234")
    with pytest.raises(CheckpointError, match="expected 5 bytes, found 4 bytes"):
        read_checksums(file)

"""What every checkpoint store promises, the one in memory included."""

from __future__ import annotations

import importlib
import pkgutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from attrs import frozen
from hypothesis import given, settings

import glm3.adapters
from glm3.adapters.memory.checkpoint_store import MemoryCheckpointStore
from glm3.adapters.msckpt import MindSporeCheckpointStore
from glm3.adapters.safetensors import SafetensorsStore
from glm3.adapters.torchfile import TorchCheckpointStore
from glm3.domain.errors import CheckpointError, MissingFileError
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.tensors import DType, TensorSpec
from support.tensors import SPECS, bits, load, numbers, save, some_tensors


@frozen
class Case:
    make: Callable[[], CheckpointStore]
    name: str
    on_disk: bool = True
    keeps_metadata: bool = True


CASES = {
    "memory": Case(MemoryCheckpointStore, "m", on_disk=False),
    "safetensors": Case(SafetensorsStore, "m.safetensors"),
    "safetensors-sharded": Case(lambda: SafetensorsStore(max_shard_bytes=50), "folder"),
    "torch": Case(TorchCheckpointStore, "m.pth", keeps_metadata=False),
    "ckpt": Case(MindSporeCheckpointStore, "m.ckpt"),
    "ckpt-in-pieces": Case(lambda: MindSporeCheckpointStore(piece_bytes=3), "m.ckpt"),
}


@pytest.fixture(params=list(CASES), scope="module")
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    return CASES[request.param]


def test_no_store_escapes_this_suite():
    """A class with the methods of the port that is in no case is a fault."""
    found = {
        value
        for module in pkgutil.walk_packages(glm3.adapters.__path__, "glm3.adapters.")
        if module.name.rpartition(".")[2] in ("store", "checkpoint_store")
        for value in vars(importlib.import_module(module.name)).values()
        if isinstance(value, type) and all(hasattr(value, m) for m in ("recognises", "open", "create"))
    } - {CheckpointStore}
    assert found == {type(case.make()) for case in CASES.values()}


@settings(max_examples=25, deadline=None)
@given(SPECS)
def test_round_trip_keeps_names_dtypes_shapes_and_bits(case, specs):
    arrays = {spec: numbers(spec) for spec in specs}
    with tempfile.TemporaryDirectory() as folder:
        store, path = case.make(), Path(folder) / case.name
        save(store, path, arrays)
        if specs or case.name != "m.ckpt":  # an empty protobuf is an empty file
            assert load(store, path) == bits(arrays)


def test_recognises_what_it_wrote_and_nothing_that_is_absent(case, tmp_path):
    store = case.make()
    assert not store.recognises(tmp_path / case.name)
    save(store, tmp_path / case.name, some_tensors())
    assert store.recognises(tmp_path / case.name)


def test_metadata_comes_back(case, tmp_path):
    store = case.make()
    save(store, tmp_path / case.name, some_tensors(), metadata={"说明": "你好"})
    with store.open(tmp_path / case.name) as reader:
        assert dict(reader.metadata) == ({"说明": "你好"} if case.keeps_metadata else {})


def test_rows_are_read_alone(case, tmp_path):
    store, arrays = case.make(), some_tensors()
    save(store, tmp_path / case.name, arrays)
    with store.open(tmp_path / case.name) as reader:
        for spec, array in arrays.items():
            for start in range(spec.shape[0] if spec.shape else 0):
                rows = slice(start, min(start + 2, spec.shape[0]))
                got = reader.read(spec.name, rows)
                assert (got.shape, got.tobytes()) == (array[rows].shape, array[rows].tobytes())
        assert reader.read("norm", slice(2, 2)).shape == (0,)


@pytest.mark.parametrize("rows", [slice(0, 10), slice(-1, 2), slice(0, 4, 2), slice(3, 2)])
def test_rows_beyond_the_tensor_are_an_error(case, tmp_path, rows):
    store = case.make()
    save(store, tmp_path / case.name, some_tensors())
    with store.open(tmp_path / case.name) as reader, pytest.raises(CheckpointError, match="embedding"):
        reader.read("embedding", rows)


def test_a_scalar_has_no_rows(case, tmp_path):
    store = case.make()
    save(store, tmp_path / case.name, some_tensors())
    with store.open(tmp_path / case.name) as reader, pytest.raises(CheckpointError, match="global_step"):
        reader.read("global_step", slice(0, 1))


def test_tensors_may_come_in_any_order_and_by_rows(case, tmp_path):
    store, arrays = case.make(), some_tensors()
    with store.create(tmp_path / case.name, list(arrays)) as writer:
        for spec, array in reversed(arrays.items()):
            if len(spec.shape) < 2:
                writer.write(spec.name, array)
                continue
            for rows in (slice(2, spec.shape[0]), slice(0, 2)):
                writer.write(spec.name, array[rows], rows)
    assert load(store, tmp_path / case.name) == bits(arrays)


def test_a_strided_or_big_endian_array_is_written_by_value(case, tmp_path):
    spec = TensorSpec("w", DType.FLOAT32, (3, 4))
    values = np.arange(12, dtype=">f4").reshape(4, 3).T
    store = case.make()
    save(store, tmp_path / case.name, {spec: values})
    with store.open(tmp_path / case.name) as reader:
        assert (reader.read("w") == values).all()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 9), np.float16), "wrong shape"),
        (np.zeros((9, 4), np.float32), "wrong dtype"),
        (np.zeros((9, 4), np.uint16), "wrong dtype"),
    ],
)
def test_an_array_unlike_its_announcement_is_refused(case, tmp_path, array, reason):
    store = case.make()
    with (
        pytest.raises(CheckpointError, match=reason),
        store.create(tmp_path / case.name, list(some_tensors())) as writer,
    ):
        writer.write("embedding", array)
    assert not store.recognises(tmp_path / case.name)


def test_a_name_that_was_not_announced_is_refused(case, tmp_path):
    with (
        pytest.raises(CheckpointError, match="not announced"),
        case.make().create(tmp_path / case.name, []) as writer,
    ):
        writer.write("stranger", np.zeros(1, np.float32))


def test_a_name_announced_twice_is_refused(case, tmp_path):
    spec = TensorSpec("w", DType.INT8, (1,))
    with (
        pytest.raises(CheckpointError, match="twice"),
        case.make().create(tmp_path / case.name, [spec, spec]),
    ):
        pass


def test_a_row_written_twice_is_refused(case, tmp_path):
    spec = TensorSpec("w", DType.INT8, (4,))
    with case.make().create(tmp_path / case.name, [spec]) as writer:
        writer.write("w", np.zeros(3, np.int8), slice(0, 3))
        with pytest.raises(CheckpointError, match="written already"):
            writer.write("w", np.zeros(2, np.int8), slice(2, 4))
        writer.write("w", np.zeros(1, np.int8), slice(3, 4))


@pytest.mark.parametrize("rows", [None, slice(0, 2)])
def test_a_tensor_that_never_came_whole_is_named_and_nothing_published(case, tmp_path, rows):
    store, arrays = case.make(), some_tensors()

    def write_most() -> None:
        with store.create(tmp_path / case.name, list(arrays)) as writer:
            for spec, array in arrays.items():
                if spec.name != "projection":
                    writer.write(spec.name, array)
                elif rows is not None:
                    writer.write(spec.name, array[rows], rows)

    with pytest.raises(CheckpointError, match="projection"):
        write_most()
    assert not store.recognises(tmp_path / case.name)
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_the_old_checkpoint_whole(case, tmp_path):
    store, old = case.make(), some_tensors(seed=1)
    save(store, tmp_path / case.name, old)

    def interrupted() -> None:
        with store.create(tmp_path / case.name, list(old)) as writer:
            writer.write("norm", np.zeros(4, np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert load(store, tmp_path / case.name) == bits(old)
    assert [entry.name for entry in tmp_path.iterdir()] == ([case.name] if case.on_disk else [])


def test_a_new_checkpoint_replaces_the_old_one_as_a_whole(case, tmp_path):
    store = case.make()
    spec = TensorSpec("only", DType.INT32, (2,))
    new = {spec: numbers(spec)}
    save(store, tmp_path / case.name, some_tensors())
    save(store, tmp_path / case.name, new)
    assert load(store, tmp_path / case.name) == bits(new)
    assert [entry.name for entry in tmp_path.iterdir()] == ([case.name] if case.on_disk else [])


def test_an_absent_path_is_missing(case, tmp_path):
    with pytest.raises(MissingFileError), case.make().open(tmp_path / case.name):
        pass


def test_an_unknown_tensor_is_named(case, tmp_path):
    store = case.make()
    save(store, tmp_path / case.name, some_tensors())
    with store.open(tmp_path / case.name) as reader, pytest.raises(CheckpointError, match="ghost"):
        reader.read("ghost")


def test_parent_folders_are_made(case, tmp_path):
    store, path = case.make(), tmp_path / "a" / "b" / case.name
    save(store, path, some_tensors())
    assert store.recognises(path)

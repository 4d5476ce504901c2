"""Safetensors headers that lie, and what is said about them."""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glm3.adapters.safetensors import SafetensorsStore
from glm3.domain.errors import CheckpointError, Glm3Error, MissingFileError
from glm3.domain.tensors import DType, TensorSpec
from support.tensors import save, some_tensors


def file_of(header: object, body: bytes = b"", path: Path | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + body
    if path is not None:
        path.write_bytes(content)
    return content


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def read_all(path: Path) -> None:
    with SafetensorsStore().open(path) as reader:
        for name in reader.tensors:
            reader.read(name)


@pytest.mark.parametrize(
    ("header", "body", "reason"),
    [
        ({"w": entry(dtype="F7")}, 8, "unsupported dtype.*F7"),
        ({"w": entry(dtype=["F32"])}, 8, "unsupported dtype"),
        ({"w": entry(shape=[-2])}, 8, "dtype, shape and data_offsets"),
        ({"w": entry(shape=[True])}, 8, "dtype, shape and data_offsets"),
        ({"w": entry(shape=[2.0])}, 8, "dtype, shape and data_offsets"),
        ({"w": {"dtype": "F32"}}, 8, "dtype, shape and data_offsets"),
        ({"w": 3}, 8, "dtype, shape and data_offsets"),
        ({"w": entry(offsets=(0, 8, 16))}, 8, "start and an end"),
        ({"w": entry(offsets=(0, 4))}, 8, "do not fit the shape"),
        ({"w": entry(offsets=(4, 12))}, 12, "gap"),
        ({"w": entry(), "v": entry(offsets=(4, 12))}, 12, "overlap"),
        ({"w": entry()}, 7, "cut"),
        ({"w": entry()}, 9, "behind its tensors"),
        ({"w": entry(shape=[0, 1 << 70], offsets=(0, 0))}, 0, "impossible shape"),
        ({"w": entry(shape=[1] * 33, offsets=(0, 4))}, 4, "impossible shape"),
        ({"__metadata__": {"a": 1}}, 0, "text to text"),
        ({"__metadata__": []}, 0, "text to text"),
        ([], 0, "not a JSON object"),
        (b"{", 0, "not valid JSON"),
        (b"[" * 100_000, 0, "not valid JSON"),
        (b'{"a": "\xff"}', 0, "not valid JSON"),
        (
            b"{%b,%b}" % ((b'"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}',) * 2),
            1,
            "appears twice",
        ),
    ],
)
def test_a_wrong_header_is_named(tmp_path, header, body, reason):
    path = tmp_path / "w.safetensors"
    file_of(header, bytes(body), path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_all(path)
    assert caught.value.path == path


@pytest.mark.parametrize("length", [1, 7])
def test_a_file_shorter_than_the_length_field_is_named(tmp_path, length):
    (tmp_path / "w.safetensors").write_bytes(bytes(length))
    with pytest.raises(CheckpointError, match="too short"):
        read_all(tmp_path / "w.safetensors")


def test_a_header_length_beyond_the_file_allocates_nothing(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(CheckpointError, match=str(1 << 60)):
        read_all(tmp_path / "w.safetensors")


VALID = file_of({"a": entry(), "__metadata__": {"k": "v"}, "b": entry("I8", (3,), (8, 11))}, bytes(11))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            read_all(path)


@settings(deadline=None)
@given(st.integers(0, len(VALID) - 1))
def test_every_truncation_is_refused(length):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        path.write_bytes(VALID[:length])
        with pytest.raises(CheckpointError):
            read_all(path)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(VALID) - 12), st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_read_without_a_crash(index, bit):
    content = bytearray(VALID)
    content[index] ^= 1 << bit
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        path.write_bytes(content)
        try:
            read_all(path)
        except Glm3Error as error:
            assert path.name in str(error)  # noqa: PT017 -- success is allowed: a name may change


def sharded(folder: Path) -> Path:
    save(SafetensorsStore(max_shard_bytes=50), folder, some_tensors())
    return folder / "model.safetensors.index.json"


def change_index(index: Path, **weight_map: str | None) -> None:
    values = json.loads(index.read_text())
    for name, file in weight_map.items():
        if file is None:
            del values["weight_map"][name]
        else:
            values["weight_map"][name] = file
    index.write_text(json.dumps(values))


def test_the_index_may_be_named_instead_of_its_folder(tmp_path):
    with SafetensorsStore().open(sharded(tmp_path / "f")) as reader:
        assert set(reader.tensors) == {spec.name for spec in some_tensors()}


def test_a_missing_shard_is_named(tmp_path):
    sharded(tmp_path / "f")
    (tmp_path / "f" / "model-00002-of-00004.safetensors").unlink()
    with pytest.raises(MissingFileError, match="model-00002-of-00004"):
        read_all(tmp_path / "f")


def test_a_tensor_that_is_not_in_its_shard_is_named(tmp_path):
    change_index(sharded(tmp_path / "f"), ghost="model-00001-of-00004.safetensors")
    with pytest.raises(CheckpointError, match="ghost is not in model-00001-of-00004"):
        read_all(tmp_path / "f")


def test_a_tensor_the_index_forgot_is_named(tmp_path):
    change_index(sharded(tmp_path / "f"), mask=None)
    with pytest.raises(CheckpointError, match=r"mask of .* is not in the index"):
        read_all(tmp_path / "f")


def test_an_index_may_not_lead_out_of_its_folder(tmp_path):
    change_index(sharded(tmp_path / "f"), norm="../outside.safetensors")
    with pytest.raises(CheckpointError, match="without folders"):
        read_all(tmp_path / "f")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"w": 3}}', "{" * 99_999]
)
def test_an_index_that_is_none_is_refused(tmp_path, content):
    sharded(tmp_path / "f").write_text(content)
    with pytest.raises(CheckpointError):
        read_all(tmp_path / "f")


def test_one_name_in_two_files_is_refused(tmp_path):
    for file in ("a.safetensors", "b.safetensors"):
        file_of({"w": entry()}, bytes(8), tmp_path / file)
    with pytest.raises(CheckpointError, match=r"w: is stored twice.*a\.safetensors and b\.safetensors"):
        read_all(tmp_path)


def test_several_files_without_an_index_are_one_checkpoint(tmp_path):
    file_of({"w": entry()}, bytes(8), tmp_path / "a.safetensors")
    file_of({"v": entry()}, bytes(8), tmp_path / "b.safetensors")
    with SafetensorsStore().open(tmp_path) as reader:
        assert set(reader.tensors) == {"w", "v"}
        assert {path.name: list(names) for path, names in reader.files.items()} == {
            "a.safetensors": ["w"],
            "b.safetensors": ["v"],
        }


def test_two_indexes_are_ambiguous(tmp_path):
    index = sharded(tmp_path / "f")
    index.with_name("other.safetensors.index.json").write_bytes(index.read_bytes())
    with pytest.raises(CheckpointError, match="several indexes"):
        read_all(tmp_path / "f")


@example(1)
@given(st.integers(1, 200))
@settings(deadline=None, max_examples=20)
def test_no_shard_is_larger_than_asked_unless_one_tensor_is(limit):
    specs = [TensorSpec(str(n), DType.INT8, (n,)) for n in range(1, 30)]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "f"
        save(SafetensorsStore(limit), target, {s: np.zeros(s.shape, np.int8) for s in specs})
        with SafetensorsStore().open(target) as reader:
            for names in reader.files.values():
                total = sum(reader.tensors[name].nbytes for name in names)
                assert total <= limit or len(names) == 1


def test_a_large_tensor_is_a_private_writable_view(tmp_path):
    """Writing to what was read must not reach the file: a mapped array is copy-on-write."""
    spec = TensorSpec("w", DType.FLOAT32, (1 << 19,))
    save(SafetensorsStore(), tmp_path / "w.safetensors", {spec: np.ones(spec.shape, np.float32)})
    before = (tmp_path / "w.safetensors").read_bytes()
    with SafetensorsStore().open(tmp_path / "w.safetensors") as reader:
        array = reader.read("w")
        array[0] = 7
        assert reader.read("w")[0] == 1
    assert array[0] == 7
    assert array[-1] == 1
    assert (tmp_path / "w.safetensors").read_bytes() == before


def test_a_file_cut_after_opening_is_an_error_not_a_crash(tmp_path):
    spec = TensorSpec("w", DType.FLOAT32, (1 << 19,))
    path = tmp_path / "w.safetensors"
    save(SafetensorsStore(), path, {spec: np.ones(spec.shape, np.float32)})
    with SafetensorsStore().open(path) as reader:
        with path.open("r+b") as file:
            file.truncate(4096)
        with pytest.raises(CheckpointError, match="cut"):
            reader.read("w")
        with pytest.raises(CheckpointError, match="ends inside"):
            reader.read("w", slice(1 << 18, 1 << 19))

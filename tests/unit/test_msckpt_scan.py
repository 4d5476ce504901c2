"""MindSpore checkpoints that are damaged, foreign or unusual."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.msckpt import MindSporeCheckpointStore
from glm3.adapters.msckpt.wire import varint
from glm3.domain.errors import CheckpointError, Glm3Error, MissingFileError
from glm3.domain.tensors import DType, TensorSpec
from support.tensors import load, numbers, save, some_tensors


def chunk(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def tensor(dims: bytes, type_name: str = "Float32", content: bytes = bytes(8)) -> bytes:
    return dims + chunk(2, type_name.encode()) + chunk(3, content)


def message(tag: str, body: bytes) -> bytes:
    return chunk(1, chunk(1, tag.encode()) + chunk(2, body))


def unpacked(*dims: int) -> bytes:
    return b"".join(b"\x08" + varint(size) for size in dims)


def packed(*dims: int) -> bytes:
    return chunk(1, b"".join(varint(size) for size in dims))


def read_all(path: Path) -> dict[str, tuple[int, ...]]:
    with MindSporeCheckpointStore().open(path) as reader:
        return {name: reader.read(name).shape for name in reader.tensors}


def shapes(tmp_path: Path, content: bytes) -> dict[str, tuple[int, ...]]:
    (tmp_path / "w.ckpt").write_bytes(content)
    return read_all(tmp_path / "w.ckpt")


@pytest.mark.parametrize("form", [unpacked, packed])
def test_sizes_are_read_in_both_forms(tmp_path, form):
    assert shapes(tmp_path, message("w", tensor(form(1, 2)))) == {"w": (1, 2)}


@pytest.mark.parametrize("dims", [b"", unpacked(0)])
def test_a_scalar_has_no_size_or_size_zero(tmp_path, dims):
    assert shapes(tmp_path, message("w", tensor(dims, content=bytes(4)))) == {"w": ()}


def test_size_zero_without_content_is_an_empty_tensor(tmp_path):
    assert shapes(tmp_path, message("w", tensor(unpacked(0), content=b""))) == {"w": (0,)}


def test_fields_of_later_versions_are_skipped(tmp_path):
    later = chunk(9, b"new") + b"\x50\x01" + b"\x59" + bytes(8) + b"\x5d" + bytes(4)
    body = tensor(unpacked(2)) + later
    assert shapes(tmp_path, chunk(1, later + chunk(1, b"w") + chunk(2, body))) == {"w": (2,)}


def test_fields_may_come_in_another_order(tmp_path):
    body = chunk(3, bytes(8)) + chunk(2, b"Float32") + unpacked(2)
    assert shapes(tmp_path, chunk(1, chunk(2, body) + chunk(1, b"w"))) == {"w": (2,)}


def test_pieces_of_one_tensor_are_joined(tmp_path):
    values = np.arange(4, dtype="<f4")
    parts = [values.tobytes()[:5], values.tobytes()[5:]]
    content = b"".join(message("w", tensor(unpacked(4), content=part)) for part in parts)
    (tmp_path / "w.ckpt").write_bytes(content)
    with MindSporeCheckpointStore().open(tmp_path / "w.ckpt") as reader:
        assert reader.read("w").tolist() == [0, 1, 2, 3]
        assert reader.read("w", slice(1, 3)).tolist() == [1, 2]


def test_a_text_is_metadata(tmp_path):
    text = message("note", tensor(unpacked(0), "str", "你好".encode("utf-32-le")))
    (tmp_path / "w.ckpt").write_bytes(text + message("w", tensor(unpacked(2))))
    with MindSporeCheckpointStore().open(tmp_path / "w.ckpt") as reader:
        assert dict(reader.metadata) == {"note": "你好"}
        assert list(reader.tensors) == ["w"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\x00" * 100, "field number 0"),
        (b"PK\x03\x04" + bytes(60), "unexpected field 10.*offset 1"),
        (b"\x12\x00", "unexpected field 2"),
        (b"\x08\x01", "unexpected field 1"),
        (b"\x0b", "wire type 3"),
        (b"\x0a\x80", "cut off"),
        (b"\x0a" + b"\xff" * 10, "too long"),
        (b"\x0a" + varint(1 << 62), "claims"),
        (message("w", tensor(unpacked(3))), "12 bytes"),
        (message("w", tensor(unpacked((1 << 64) - 2))), "impossible shape"),
        (message("w", tensor(unpacked(1 << 40, 1 << 40))), "impossible shape"),
        (message("w", tensor(unpacked(*[1] * 33))), "more than 32"),
        (message("w", tensor(packed(*[1] * 400))), "not numbers"),
        (message("w", tensor(unpacked(2), "Float7")), "Float7"),
        (message("w", unpacked(2) + chunk(2, b"Float32")), "no content"),
        (message("w", unpacked(2) + chunk(3, bytes(8))), "no type"),
        (message("w", tensor(unpacked(2)) + chunk(3, bytes(8))), "repeated"),
        (chunk(1, chunk(2, tensor(unpacked(2)))), "without a name"),
        (chunk(1, chunk(1, b"w")), "without a name or a tensor"),
        (chunk(1, chunk(1, b"\xff") + chunk(2, tensor(unpacked(2)))), "UTF-8"),
        (chunk(1, chunk(1, b"n" * 70_000) + chunk(2, tensor(unpacked(2)))), "short text"),
        (chunk(1, chunk(1, b"m") + chunk(3, b"")), "hash-map"),
        (message("w", tensor(unpacked(2))) + message("w", tensor(unpacked(1, 2))), "differ"),
        (
            message("w", tensor(unpacked(2)))
            + message("v", tensor(unpacked(2)))
            + message("w", tensor(unpacked(2))),
            "w is stored twice",
        ),
        (message("s", tensor(unpacked(0), "str", b"abc")), "not a text"),
        (message("s", tensor(unpacked(0), "str", bytes((1 << 20) + 4))), "too long"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, reason):
    with pytest.raises(CheckpointError, match=reason) as caught:
        shapes(tmp_path, content)
    assert caught.value.path == tmp_path / "w.ckpt"


def valid() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(MindSporeCheckpointStore(piece_bytes=30), Path(folder) / "w.ckpt", some_tensors())
        return (Path(folder) / "w.ckpt").read_bytes()


VALID = valid()


def attempt(content: bytes) -> dict[str, tuple[int, ...]]:
    """Read everything; fail on any error that is not the project's and on any large allocation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.ckpt"
        path.write_bytes(content)
        tracemalloc.start()
        try:
            return read_all(path)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 1 << 20


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_random_bytes_are_refused(content):
    with pytest.raises(CheckpointError):
        attempt(content)


@settings(deadline=None)
@given(st.integers(0, len(VALID) - 1))
def test_a_truncation_never_yields_all_tensors(length):
    try:
        assert len(attempt(VALID[:length])) < len(some_tensors())
    except CheckpointError as error:
        assert "w.ckpt" in str(error)  # noqa: PT017 -- a cut between two entries cannot be noticed


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(VALID) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_read_without_a_crash(index, bit):
    content = bytearray(VALID)
    content[index] ^= 1 << bit
    try:
        attempt(bytes(content))
    except Glm3Error as error:
        assert "w.ckpt" in str(error)  # noqa: PT017 -- a flip inside numbers is legal


def test_the_checksum_at_the_end_is_not_an_entry(tmp_path):
    assert shapes(tmp_path, message("w", tensor(unpacked(2))) + b"crc_num" + bytes(10)) == {"w": (2,)}


def test_a_folder_with_one_file_is_that_file(tmp_path):
    save(MindSporeCheckpointStore(), tmp_path / "a.ckpt", some_tensors())
    store = MindSporeCheckpointStore()
    assert load(store, tmp_path) == load(store, tmp_path / "a.ckpt")


def test_a_folder_with_two_files_is_ambiguous(tmp_path):
    for name in ("a.ckpt", "b.ckpt"):
        save(MindSporeCheckpointStore(), tmp_path / name, some_tensors())
    with pytest.raises(CheckpointError, match=r"a\.ckpt, b\.ckpt"):
        read_all(tmp_path)


def test_an_empty_folder_is_missing_its_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"\*\.ckpt"):
        read_all(tmp_path)


def test_a_text_may_not_bear_a_tensors_name(tmp_path):
    with pytest.raises(CheckpointError, match="norm"):
        save(MindSporeCheckpointStore(), tmp_path / "w.ckpt", some_tensors(), metadata={"norm": "x"})
    assert list(tmp_path.iterdir()) == []


@given(st.integers(1, 60), st.integers(0, 20), st.integers(0, 20))
@settings(deadline=None, max_examples=40)
def test_rows_cross_pieces(piece_bytes, start, length):
    spec = TensorSpec("w", DType.INT32, (20, 2))
    start = min(start, 20)
    rows = slice(start, min(20, start + length))
    with tempfile.TemporaryDirectory() as folder:
        store, path = MindSporeCheckpointStore(piece_bytes), Path(folder) / "w.ckpt"
        array = numbers(spec)
        with store.create(path, [spec]) as writer:
            for part in (slice(0, start), rows, slice(rows.stop, 20)):
                writer.write("w", array[part], part)
        with store.open(path) as reader:
            assert reader.read("w").tobytes() == array.tobytes()
            assert reader.read("w", rows).tobytes() == array[rows].tobytes()

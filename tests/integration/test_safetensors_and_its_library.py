"""The reference library reads what this project writes, and the other way round."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from glm3.adapters.safetensors import SafetensorsStore
from glm3.domain.errors import CheckpointError
from glm3.domain.tensors import DType
from support.tensors import SPECS, bits, load, numbers, save, some_tensors


@settings(max_examples=40, deadline=None)
@given(SPECS)
def test_the_library_reads_ours(specs):
    arrays = {spec: numbers(spec) for spec in specs if spec.dtype is not DType.BFLOAT16}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours.safetensors"
        save(SafetensorsStore(), path, arrays, metadata={"format": "pt"})
        theirs = load_file(path)
        assert {
            name: (DType(array.dtype.name), array.shape, array.tobytes()) for name, array in theirs.items()
        } == bits(arrays)
        with safe_open(path, framework="np") as file:
            assert file.metadata() == {"format": "pt"}


@settings(max_examples=40, deadline=None)
@given(SPECS)
def test_we_read_the_librarys(specs):
    arrays = {spec: numbers(spec) for spec in specs if spec.dtype is not DType.BFLOAT16}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "theirs.safetensors"
        save_file({spec.name: array for spec, array in arrays.items()}, path)
        assert load(SafetensorsStore(), path) == bits(arrays)


def test_bfloat16_agrees_with_the_librarys_torch_side(tmp_path):
    torch = pytest.importorskip("torch", reason="the library gives bfloat16 to torch alone")
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    arrays = {spec: array for spec, array in some_tensors().items() if spec.dtype is DType.BFLOAT16}
    save(SafetensorsStore(), tmp_path / "ours.safetensors", arrays)
    theirs = load_torch(tmp_path / "ours.safetensors")
    assert all(tensor.dtype is torch.bfloat16 for tensor in theirs.values())
    save_torch(theirs, tmp_path / "theirs.safetensors")
    assert load(SafetensorsStore(), tmp_path / "theirs.safetensors") == bits(arrays)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: data[:40]]
)
def test_both_refuse_the_same_damage(tmp_path, damage):
    path = tmp_path / "w.safetensors"
    save(SafetensorsStore(), path, some_tensors())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SafetensorError), safe_open(path, framework="np"):
        pass
    with pytest.raises(CheckpointError), SafetensorsStore().open(path):
        pass

"""MindSpore reads what this project writes, and the other way round."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from glm3.adapters.msckpt import MindSporeCheckpointStore
from glm3.adapters.safetensors import SafetensorsStore
from glm3.domain.tensors import DType, TensorSpec, from_float32, to_float32
from support.tensors import save

VALUES = np.linspace(-3, 3, 24, dtype=np.float32).reshape(6, 4)
SPECS = [
    TensorSpec("transformer.embedding.embedding_table", DType.FLOAT16, (6, 4)),
    TensorSpec("dense", DType.BFLOAT16, (6, 4)),
    TensorSpec("norm", DType.FLOAT32, (6, 4)),
    TensorSpec("quantized", DType.INT8, (6, 4)),
    TensorSpec("mask", DType.BOOL, (6, 4)),
]
STEP = TensorSpec("global_step", DType.INT32, ())


def carried(spec: TensorSpec) -> np.ndarray:
    if spec.dtype.is_floating:
        return from_float32(VALUES, spec.dtype)
    return VALUES.astype(spec.dtype.carrier)


def as_tensor(spec: TensorSpec) -> ms.Tensor:
    array = carried(spec)
    tensor = ms.Tensor(array.view(np.int16) if spec.dtype is DType.BFLOAT16 else array)
    return tensor.view(ms.bfloat16) if spec.dtype is DType.BFLOAT16 else tensor


def assert_loaded(loaded: dict[str, ms.Parameter]) -> None:
    for spec in SPECS:
        parameter = loaded[spec.name]
        assert parameter.shape == spec.shape
        assert str(parameter.dtype).lower() == spec.dtype.value
        expected = carried(spec)
        if spec.dtype.is_floating:
            expected = to_float32(expected, spec.dtype)
            assert (parameter.asnumpy().astype(np.float32) == expected).all()
        else:
            assert (parameter.asnumpy() == expected).all()


def assert_read(reader) -> None:
    for spec in SPECS:
        assert reader.tensors[spec.name] == spec
        assert reader.read(spec.name).tobytes() == carried(spec).tobytes()
        assert reader.read(spec.name, slice(1, 3)).tobytes() == carried(spec)[1:3].tobytes()


@pytest.mark.parametrize("piece_bytes", [512 << 20, 10])
def test_mindspore_loads_our_ckpt(tmp_path, piece_bytes):
    """Cut into pieces of ten bytes too, as MindSpore cuts at 512 MiB."""
    arrays = {spec: carried(spec) for spec in SPECS} | {STEP: np.array(7, np.int32)}
    path = tmp_path / "ours.ckpt"
    save(MindSporeCheckpointStore(piece_bytes), path, arrays, metadata={"note": "你好"})
    loaded = ms.load_checkpoint(str(path))
    assert_loaded(loaded)
    assert loaded["global_step"].shape == ()
    assert int(loaded["global_step"].asnumpy()) == 7
    assert loaded["note"] == "你好"


@pytest.mark.parametrize("crc_check", [False, True])
def test_we_read_mindspores_ckpt(tmp_path, crc_check):
    path = tmp_path / "theirs.ckpt"
    ms.save_checkpoint(
        [{"name": spec.name, "data": as_tensor(spec)} for spec in SPECS],
        str(path),
        append_dict={"epoch_num": 3, "loss_scale": 65536.0, "done": True, "note": "你好"},
        crc_check=crc_check,
    )
    with MindSporeCheckpointStore().open(path) as reader:
        assert_read(reader)
        assert dict(reader.metadata) == {"note": "你好"}
        assert int(reader.read("epoch_num")) == 3
        assert float(reader.read("loss_scale")) == 65536.0
        assert bool(reader.read("done"))


def test_we_join_the_pieces_mindspore_cuts(tmp_path, monkeypatch):
    from mindspore.train import serialization

    monkeypatch.setattr(serialization, "SLICE_SIZE", 1)  # KiB
    values = np.arange(1000, dtype=np.float32).reshape(250, 4)
    path = tmp_path / "theirs.ckpt"
    ms.save_checkpoint([{"name": "w", "data": ms.Tensor(values)}], str(path))
    with MindSporeCheckpointStore().open(path) as reader:
        assert (reader.read("w") == values).all()
        assert (reader.read("w", slice(60, 70)) == values[60:70]).all()


def test_our_ckpt_is_byte_for_byte_mindspores(tmp_path):
    """The same tensors in the same order give the same file, so any reader of theirs reads ours."""
    ms.save_checkpoint(
        [{"name": spec.name, "data": as_tensor(spec)} for spec in SPECS], str(tmp_path / "theirs.ckpt")
    )
    save(MindSporeCheckpointStore(), tmp_path / "ours.ckpt", {spec: carried(spec) for spec in SPECS})
    assert (tmp_path / "ours.ckpt").read_bytes() == (tmp_path / "theirs.ckpt").read_bytes()


def test_mindspore_loads_our_safetensors(tmp_path):
    path = tmp_path / "ours.safetensors"
    save(SafetensorsStore(), path, {spec: carried(spec) for spec in SPECS}, metadata={"format": "ms"})
    assert_loaded(ms.load_checkpoint(str(path), format="safetensors"))


def test_we_read_mindspores_safetensors(tmp_path):
    path = tmp_path / "theirs.safetensors"
    ms.save_checkpoint(
        [{"name": spec.name, "data": as_tensor(spec)} for spec in SPECS], str(path), format="safetensors"
    )
    with SafetensorsStore().open(path) as reader:
        assert_read(reader)


def test_a_network_takes_our_ckpt(tmp_path):
    """Texts beside the tensors do not disturb MindSpore's own loading into a network."""
    net = ms.nn.Dense(4, 6)
    arrays = {TensorSpec("weight", DType.FLOAT32, (6, 4)): VALUES} | {
        TensorSpec("bias", DType.FLOAT32, (6,)): VALUES[:, 0].copy()
    }
    save(MindSporeCheckpointStore(), tmp_path / "ours.ckpt", arrays, metadata={"note": "x"})
    loaded = ms.load_checkpoint(str(tmp_path / "ours.ckpt"))
    loaded.pop("note")
    missing, unexpected = ms.load_param_into_net(net, loaded)
    assert (missing, unexpected) == ([], [])
    assert (net.weight.asnumpy() == VALUES).all()

"""PyTorch's files, written by torch itself."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest

from glm3.adapters.torchfile import TorchCheckpointStore
from glm3.domain.errors import BackendError, CheckpointError, MissingFileError
from glm3.domain.tensors import DType, TensorSpec
from support.tensors import bits, load, save, some_tensors

torch = pytest.importorskip("torch", reason="torch is an optional extra")

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny"


def state() -> dict[str, object]:
    return {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}


def read_all(path: Path) -> dict[str, tuple[DType, tuple[int, ...]]]:
    return {name: value[:2] for name, value in load(TorchCheckpointStore(), path).items()}


EXPECTED = {"w": (DType.FLOAT32, (2, 3)), "b": (DType.BFLOAT16, (3,))}


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_any_torch_are_read(tmp_path, zipped):
    torch.save(state(), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert read_all(tmp_path / "w.pth") == EXPECTED
    with TorchCheckpointStore().open(tmp_path / "w.pth") as reader:
        assert reader.read("w", slice(1, 2)).tolist() == [[3, 4, 5]]


def test_views_of_shared_storage_are_read_by_value(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    torch.save({"all": base, "column": base[:, 1], "turned": base.T}, tmp_path / "w.bin")
    with TorchCheckpointStore().open(tmp_path / "w.bin") as reader:
        assert reader.read("column").tolist() == [1, 5, 9]
        assert reader.read("turned", slice(1, 2)).tolist() == [[1, 5, 9]]


def test_torch_reads_ours(tmp_path):
    arrays = some_tensors()
    save(TorchCheckpointStore(), tmp_path / "w.pth", arrays)
    loaded = torch.load(tmp_path / "w.pth", weights_only=True)
    assert {name: (str(t.dtype), tuple(t.shape)) for name, t in loaded.items()} == {
        spec.name: (f"torch.{spec.dtype}", spec.shape) for spec in arrays
    }
    torch.save(loaded, tmp_path / "again.pth")
    assert load(TorchCheckpointStore(), tmp_path / "again.pth") == bits(arrays)


def test_weights_under_state_dict_are_found(tmp_path):
    torch.save({"epoch": 3, "state_dict": state()}, tmp_path / "w.pth")
    assert read_all(tmp_path / "w.pth") == EXPECTED


def test_a_published_folder_of_shards_is_read():
    assert len(read_all(GOLDEN / "hf_bin")) == 18


def test_a_missing_shard_is_named(tmp_path):
    index = {"weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(MissingFileError, match="00001-of-00001"):
        read_all(tmp_path)


def test_a_tensor_the_index_places_wrongly_is_named(tmp_path):
    torch.save(state(), tmp_path / "pytorch_model-00001-of-00001.bin")
    names = dict.fromkeys(("w", "b", "ghost"), "pytorch_model-00001-of-00001.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(CheckpointError, match="ghost"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"weight_map": {"w": "../w.bin"}}', '{"weight_map": {"w": 3}}']
)
def test_an_index_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "pytorch_model.bin.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="index"):
        read_all(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path):
    for number in (1, 2):
        torch.save(state(), tmp_path / f"pytorch_model-0000{number}-of-00002.bin")
    with pytest.raises(CheckpointError, match="stored twice"):
        read_all(tmp_path)


def test_a_folder_of_several_files_is_ambiguous(tmp_path):
    for name in ("a.pth", "b.pth"):
        torch.save(state(), tmp_path / name)
    with pytest.raises(CheckpointError, match=r"a\.pth, b\.pth"):
        read_all(tmp_path)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(Trap.place),)

    place = ""


def test_code_in_a_file_is_never_run(tmp_path):
    Trap.place = str(tmp_path / "sprung")
    (tmp_path / "w.bin").write_bytes(pickle.dumps({"w": Trap()}, protocol=2))
    with pytest.raises(CheckpointError, match="torch cannot read it") as caught:
        read_all(tmp_path / "w.bin")
    assert not (tmp_path / "sprung").exists()
    assert "can still be loaded" not in str(caught.value), "torch's advice to run the code is not passed on"


@pytest.mark.parametrize("content", [b"", b"PK", b"garbage", b"PK\x03\x04" + bytes(100)])
def test_garbage_is_refused(tmp_path, content):
    (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_all(tmp_path / "w.bin")
    assert caught.value.path == tmp_path / "w.bin"


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_cut_file_is_refused(tmp_path, share):
    torch.save(state(), tmp_path / "w.bin")
    content = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError):
        read_all(tmp_path / "w.bin")


@pytest.mark.parametrize("value", [[1, 2], {"w": "text"}, {"w": torch.zeros(2, dtype=torch.complex64)}])
def test_what_is_no_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "w.bin")
    with pytest.raises(CheckpointError):
        read_all(tmp_path / "w.bin")


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    torch.save(state(), tmp_path / "w.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    store = TorchCheckpointStore()
    assert store.recognises(tmp_path / "w.bin")
    with pytest.raises(BackendError, match=r'pip install "glm3\[torch\]"'), store.open(tmp_path / "w.bin"):
        pass
    spec = TensorSpec("w", DType.FLOAT32, ())
    with pytest.raises(BackendError, match="torch"), store.create(tmp_path / "v.bin", [spec]):
        pass

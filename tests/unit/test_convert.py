"""Conversion: names, dtypes, companions, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.memory.checkpoint_store import MemoryCheckpointStore
from glm3.adapters.msckpt import MindSporeCheckpointStore
from glm3.adapters.safetensors import SafetensorsStore
from glm3.adapters.torchfile import TorchCheckpointStore
from glm3.application import convert as module
from glm3.application.convert import ConversionRequest, convert
from glm3.domain.errors import (
    CheckpointError,
    InvalidInputError,
    MissingFileError,
    ParameterMismatchError,
    StorageError,
    UsageError,
)
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import EMBEDDING, FINAL_NORM, parameter_shapes
from glm3.domain.tensors import DType, TensorSpec
from support.tensors import load, numbers, save

STORES = [SafetensorsStore(), MindSporeCheckpointStore(), TorchCheckpointStore()]
TINY = Path(__file__).parents[1] / "golden" / "tiny" / "hf"
TARGET_NAMES = {"hf": "folder", "safetensors": "m.safetensors", "ckpt": "m.ckpt", "bin": "m.pth"}
CONFIG = ModelConfig(
    num_layers=1,
    hidden_size=8,
    ffn_hidden_size=6,
    kv_channels=4,
    num_attention_heads=2,
    multi_query_group_num=1,
    padded_vocab_size=10,
)


def request(source: Path, target: Path, to: str, **options: object) -> ConversionRequest:
    return ConversionRequest(source=source, target=target, format=to, **options)


def model_folder(folder: Path, dtype: DType = DType.FLOAT16, **changes: np.ndarray | None) -> Path:
    """Save a whole small model with random numbers that any dtype holds."""
    rng = np.random.default_rng(0)
    arrays = {
        TensorSpec(name, dtype, shape): rng.standard_normal(shape).astype(dtype.carrier)
        for name, shape in parameter_shapes(CONFIG).items()
    }
    for name, array in changes.items():
        arrays = {spec: values for spec, values in arrays.items() if spec.name != name}
        if array is not None:
            arrays[TensorSpec(name, DType(array.dtype.name), array.shape)] = array
    save(SafetensorsStore(max_shard_bytes=300), folder, arrays)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_hugging_face()))
    return folder


@pytest.mark.parametrize("first", TARGET_NAMES)
@pytest.mark.parametrize("second", TARGET_NAMES)
def test_any_format_to_any_other_and_back_keeps_every_bit(tmp_path, first, second):
    """Two hops and the way home: embeddings are renamed and named back, shards cut and joined."""
    path = TINY
    for hop, to in enumerate((first, second, "hf")):
        target = tmp_path / str(hop) / TARGET_NAMES[to]
        result = convert(request(path, target, to, verify=True), STORES)
        assert (result.tensors, result.verified, result.format) == (18, True, to)
        path = target
    assert load(STORES[0], path) == load(STORES[0], TINY)


@pytest.mark.parametrize("to", ["ckpt", "safetensors"])
def test_mindspore_targets_bear_mindspore_names(tmp_path, to):
    target = tmp_path / TARGET_NAMES[to]
    convert(request(TINY, target, to), STORES)
    names = {name for store in STORES[:2] if store.recognises(target) for name in load(store, target)}
    assert "transformer.embedding.embedding_table" in names
    assert EMBEDDING not in names


def test_the_later_mindspore_name_of_the_embedding_is_understood(tmp_path):
    spec = TensorSpec("transformer.embedding.embedding_weight", DType.FLOAT16, (3, 2))
    save(STORES[1], tmp_path / "m.ckpt", {spec: numbers(spec)})
    convert(request(tmp_path / "m.ckpt", tmp_path / "m.bin", "bin"), STORES)
    assert list(load(STORES[2], tmp_path / "m.bin")) == [EMBEDDING]


def test_both_names_of_the_embedding_in_one_file_are_refused(tmp_path):
    specs = [TensorSpec(n, DType.INT8, (1,)) for n in (EMBEDDING, "transformer.embedding.embedding_table")]
    save(STORES[1], tmp_path / "m.ckpt", {spec: numbers(spec) for spec in specs})
    with pytest.raises(CheckpointError, match="announced twice"):
        convert(request(tmp_path / "m.ckpt", tmp_path / "m.bin", "bin"), STORES)


def test_slabs_cover_a_tensor_larger_than_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLAB_BYTES", 100)
    seen = []
    source = model_folder(tmp_path / "m")
    convert(
        request(source, tmp_path / "m.ckpt", "ckpt", verify=True), STORES, lambda *told: seen.append(told)
    )
    total = sum(2 * int(np.prod(shape)) for shape in parameter_shapes(CONFIG).values())
    assert len(seen) > len(parameter_shapes(CONFIG))
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[-1][:2] == (total, total)
    assert {name for _, _, name in seen} == set(parameter_shapes(CONFIG))
    with STORES[0].open(source) as before, STORES[1].open(tmp_path / "m.ckpt") as after:
        for name in parameter_shapes(CONFIG):
            if name != EMBEDDING:
                assert before.read(name).tobytes() == after.read(name).tobytes()


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.BFLOAT16])
def test_a_change_of_dtype_is_verified_and_told(tmp_path, dtype):
    source = model_folder(tmp_path / "m")
    result = convert(request(source, tmp_path / "out", "hf", dtype=dtype, verify=True), STORES)
    assert result.dtypes == ((DType.FLOAT16, dtype),)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == dtype.value
    assert {kind for kind, _, _ in load(STORES[0], tmp_path / "out").values()} == {dtype}


def test_integers_keep_their_dtype(tmp_path):
    spec = TensorSpec("global_step", DType.INT32, ())
    save(STORES[1], tmp_path / "m.ckpt", {spec: np.array(7, np.int32)})
    convert(request(tmp_path / "m.ckpt", tmp_path / "n.ckpt", "ckpt", dtype=DType.FLOAT16), STORES)
    assert load(STORES[1], tmp_path / "n.ckpt") == load(STORES[1], tmp_path / "m.ckpt")


def test_a_number_too_large_for_the_new_dtype_leaves_no_target(tmp_path):
    source = model_folder(tmp_path / "m", DType.FLOAT32, **{FINAL_NORM: np.full(8, 1e9, np.float32)})
    with pytest.raises(InvalidInputError, match=FINAL_NORM):
        convert(request(source, tmp_path / "m.ckpt", "ckpt", dtype=DType.FLOAT16), STORES)
    assert not (tmp_path / "m.ckpt").exists()


def test_companions_of_the_published_folder_come_along_unchanged(tmp_path):
    source = model_folder(tmp_path / "m")
    (source / "tokenizer.model").write_bytes(b"\0pieces")
    (source / "notes.txt").write_text("mine")
    convert(request(source, tmp_path / "out", "hf", extra_files={"run.yaml": b"a: 1\n"}), STORES)
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == b"\0pieces"
    assert (tmp_path / "out" / "run.yaml").read_bytes() == b"a: 1\n"
    assert not (tmp_path / "out" / "notes.txt").exists()
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert ModelConfig.from_mapping(values) == ModelConfig.from_mapping(
        json.loads((source / "config.json").read_text())
    )


def test_extra_files_lie_beside_a_file_target(tmp_path):
    convert(request(TINY, tmp_path / "m.ckpt", "ckpt", extra_files={"run.yaml": b"a: 1\n"}), STORES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.ckpt", "run.yaml"]


def test_a_configuration_read_off_the_shapes_is_said_to_be(tmp_path):
    convert(request(TINY, tmp_path / "m.ckpt", "ckpt"), STORES)
    result = convert(request(tmp_path / "m.ckpt", tmp_path / "out", "hf"), STORES)
    assert any("read off the shapes" in note for note in result.notes)
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert parameter_shapes(ModelConfig.from_mapping(values)) == parameter_shapes(
        ModelConfig.from_mapping(json.loads((TINY / "config.json").read_text()))
    )


def test_a_given_configuration_wins(tmp_path):
    config = CONFIG.evolve(rope_ratio=50.0)
    convert(request(model_folder(tmp_path / "m"), tmp_path / "out", "hf", config=config), STORES)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["rope_ratio"] == 50.0


def test_other_tensors_convert_without_a_configuration(tmp_path):
    spec = TensorSpec("x", DType.FLOAT16, (2,))
    save(STORES[1], tmp_path / "m.ckpt", {spec: numbers(spec)})
    result = convert(request(tmp_path / "m.ckpt", tmp_path / "out", "hf"), STORES)
    assert any("no config.json" in note for note in result.notes)


def test_check_files_are_the_model_cards(tmp_path):
    convert(request(TINY, tmp_path / "m.ckpt", "ckpt", check_files=tmp_path / "check"), STORES)
    lines = (tmp_path / "check" / "check_pt_ckpt.txt").read_text().splitlines()
    assert "transformer.embedding.embedding_table torch.Size([512, 64]) torch.float32" in lines
    assert "transformer.rotary_pos_emb.inv_freq torch.Size([4]) torch.float32" in lines
    parameters = (tmp_path / "check" / "pt_ckpt.txt").read_text().splitlines()
    assert f"{EMBEDDING} torch.Size([512, 64]) torch.float32" in parameters
    assert len(parameters) == len(lines) - 1 == 17


def test_metadata_that_was_true_of_the_old_file_alone_is_left_behind(tmp_path):
    spec = TensorSpec("x", DType.FLOAT16, (2,))
    metadata = {"format": "ms", "crc_num": "5", "author": "me"}
    save(STORES[0], tmp_path / "m.safetensors", {spec: numbers(spec)}, metadata=metadata)
    convert(request(tmp_path / "m.safetensors", tmp_path / "out", "hf"), STORES)
    with STORES[0].open(tmp_path / "out") as reader:
        assert dict(reader.metadata) == {"format": "pt", "author": "me"}


def test_weights_that_are_not_whole_are_refused_with_every_name(tmp_path):
    changes = {FINAL_NORM: None, EMBEDDING: np.zeros((9, 8), np.float16)}
    source = model_folder(tmp_path / "m", **changes)
    with pytest.raises(ParameterMismatchError) as caught:
        convert(request(source, tmp_path / "m.ckpt", "ckpt"), STORES)
    assert caught.value.missing == (FINAL_NORM,)
    assert caught.value.mis_shaped == ((EMBEDDING, (10, 8), (9, 8)),)
    assert not (tmp_path / "m.ckpt").exists()


@pytest.mark.parametrize(
    ("to", "name", "reason"),
    [
        ("gguf2", "m", "no such format"),
        ("ckpt", "m", "needs a file name"),
        ("ckpt", "m.safetensors", "needs a file name"),
        ("hf", "m.safetensors", "needs a folder"),
    ],
)
def test_a_target_that_does_not_suit_its_format_is_a_usage_error(tmp_path, to, name, reason):
    with pytest.raises(UsageError, match=reason):
        convert(request(TINY, tmp_path / name, to), STORES)


def test_a_format_without_a_store_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such format"):
        convert(request(TINY, tmp_path / "m.ckpt", "ckpt"), STORES[:1])


@pytest.mark.parametrize("to", ["hf", "ckpt"])
def test_what_exists_is_replaced_only_when_asked(tmp_path, to):
    target = tmp_path / TARGET_NAMES[to]
    convert(request(TINY, target, to), STORES)
    with pytest.raises(UsageError, match="exists already"):
        convert(request(TINY, target, to), STORES)
    result = convert(request(TINY, target, to, overwrite=True, verify=True), STORES)
    assert result.tensors == 18


def test_source_and_target_must_differ(tmp_path):
    source = shutil.copytree(TINY, tmp_path / "m", copy_function=shutil.copyfile)
    with pytest.raises(UsageError, match="the same"):
        convert(request(source, source, "hf", overwrite=True), STORES)
    with pytest.raises(UsageError, match="the same"):
        convert(request(source / "model.safetensors.index.json", source, "hf", overwrite=True), STORES)


def test_a_source_that_is_missing_or_no_checkpoint_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="absent"):
        convert(request(tmp_path / "absent", tmp_path / "m.ckpt", "ckpt"), STORES)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"\*\.safetensors.*notes\.txt"):
        convert(request(tmp_path / "notes.txt", tmp_path / "m.ckpt", "ckpt"), STORES)
    (tmp_path / "m.gguf").write_text("")
    with pytest.raises(CheckpointError, match=r"\nhint: a \.gguf is written and never read"):
        convert(request(tmp_path / "m.gguf", tmp_path / "m.ckpt", "ckpt"), STORES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint of a known format"):
        convert(request(tmp_path / "empty", tmp_path / "m.ckpt", "ckpt"), STORES)


def test_a_target_that_reads_back_wrong_is_never_published(tmp_path, monkeypatch):
    class Faulty(MindSporeCheckpointStore):
        """A disk that loses a bit of what was written."""

        def open(self, path):
            if path.name == "m.ckpt":
                content = bytearray(path.read_bytes())
                content[-1] ^= 1
                path.write_bytes(content)
            return super().open(path)

    with pytest.raises(CheckpointError, match="reads back other"):
        convert(request(TINY, tmp_path / "m.ckpt", "ckpt", verify=True), [STORES[0], Faulty()])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["hf", "safetensors", "ckpt"])
def test_a_disk_that_fills_up_is_a_storage_error_and_leaves_nothing(tmp_path, monkeypatch, to):
    write, left = os.pwrite, [300_000]

    def fill_up(descriptor: int, data: bytes, offset: int) -> int:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", fill_up)
    with pytest.raises(StorageError, match="No space left") as caught:
        convert(request(TINY, tmp_path / TARGET_NAMES[to], to), STORES)
    assert caught.value.path.name == TARGET_NAMES[to]
    assert str(caught.value.expected).endswith("bytes")
    assert str(caught.value.found).endswith("bytes free")
    assert list(tmp_path.iterdir()) == []


def test_the_memory_store_serves_as_a_source(tmp_path):
    store, spec = MemoryCheckpointStore(), TensorSpec("x", DType.FLOAT16, (2, 3))
    save(store, Path("virtual"), {spec: numbers(spec)})
    convert(request(Path("virtual"), tmp_path / "m.ckpt", "ckpt"), [store, STORES[1]])
    assert load(STORES[1], tmp_path / "m.ckpt") == load(store, Path("virtual"))

"""What is told about a checkpoint without reading its numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glm3.adapters.memory.checkpoint_store import MemoryCheckpointStore
from glm3.adapters.msckpt import MindSporeCheckpointStore
from glm3.adapters.safetensors import SafetensorsStore
from glm3.application.convert import ConversionRequest, convert
from glm3.application.inspect_checkpoint import FieldDifference, inspect_checkpoint
from glm3.domain.errors import ConfigError
from glm3.domain.parameters import EMBEDDING
from glm3.domain.tensors import DType, TensorSpec
from support.tensors import numbers, save

STORES = [SafetensorsStore(), MindSporeCheckpointStore()]
TINY = Path(__file__).parents[1] / "golden" / "tiny" / "hf"


def copy_of_tiny(tmp_path: Path, **changes: object) -> Path:
    folder = shutil.copytree(TINY, tmp_path / "m", copy_function=shutil.copyfile)
    folder.chmod(0o755)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_a_published_folder_is_told_in_full():
    report = inspect_checkpoint(TINY, STORES)
    assert report.format == "safetensors"
    assert report.parameter_count == 158_272
    assert report.total_bytes == 4 * (158_272 + 4)
    assert report.dtypes == {"float32": report.total_bytes}
    assert {file.path.name: file.tensors for file in report.files} == {
        "model-00001-of-00002.safetensors": 9,
        "model-00002-of-00002.safetensors": 9,
    }
    assert all(file.file_bytes > file.tensor_bytes > 0 for file in report.files)
    assert sum(file.tensor_bytes for file in report.files) == report.total_bytes
    assert report.implied.config.num_kv_heads == 2
    assert report.config.num_layers == report.implied.config.num_layers == 2
    assert report.field_differences == ()
    assert not report.parameter_differences


def test_a_mindspore_file_implies_the_same_network(tmp_path):
    convert(ConversionRequest(source=TINY, target=tmp_path / "m.ckpt", format="ckpt"), STORES)
    report = inspect_checkpoint(tmp_path / "m.ckpt", STORES)
    assert report.format == "ckpt"
    assert report.config is None
    assert report.parameter_differences is None
    assert report.implied.derived == inspect_checkpoint(TINY, STORES).implied.derived
    assert [file.tensors for file in report.files] == [18]


def test_a_configuration_that_lies_is_found_out(tmp_path):
    folder = copy_of_tiny(tmp_path, num_layers=3, ffn_hidden_size=100, torch_dtype="float16")
    report = inspect_checkpoint(folder, STORES)
    assert set(report.field_differences) == {
        FieldDifference("num_layers", 3, 2),
        FieldDifference("ffn_hidden_size", 100, 176),
        FieldDifference("param_init_type", DType.FLOAT16, DType.FLOAT32),
    }
    assert "transformer.encoder.layers.2.input_layernorm.weight" in report.parameter_differences.missing
    assert len(report.parameter_differences.mis_shaped) == 4


def test_heads_without_multi_query_are_no_difference(tmp_path):
    """``multi_query_attention`` false means as many key heads as query heads, whatever the group number."""
    folder = copy_of_tiny(tmp_path, multi_query_attention=False)
    differences = inspect_checkpoint(folder, STORES).field_differences
    assert differences == (FieldDifference("multi_query_group_num", 4, 2),)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_configuration_is_an_error(tmp_path, content):
    folder = copy_of_tiny(tmp_path)
    (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        inspect_checkpoint(folder, STORES)


def test_other_tensors_are_listed_and_imply_nothing():
    store, spec = MemoryCheckpointStore(), TensorSpec("x", DType.BFLOAT16, (3, 2))
    save(store, Path("virtual"), {spec: numbers(spec)}, metadata={"k": "v"})
    report = inspect_checkpoint(Path("virtual"), [store])
    assert report.tensors == (spec,)
    assert report.metadata == {"k": "v"}
    assert (report.implied, report.files, report.parameter_count) == (None, (), 6)
    assert EMBEDDING not in {tensor.name for tensor in report.tensors}

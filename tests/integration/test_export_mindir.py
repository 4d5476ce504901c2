"""``glm3 export mindir``: files that MindSpore loads again, with the right numbers and operators."""

from __future__ import annotations

import json

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from glm3.adapters.mindspore.export.exporter import MindirExporter
from glm3.adapters.mindspore.runtime import graph_mode
from glm3.domain.errors import ConfigError, InvalidInputError
from glm3.domain.ports.graph_exporter import GraphOptions
from glm3.domain.tensors import DType
from support.cli import glm3
from support.models import ArrayReader, golden_arrays, golden_config, golden_parameters, tiny_config

GOLDEN = "tiny"


@pytest.fixture(scope="module")
def reader():
    return ArrayReader(golden_parameters(GOLDEN))


def run(path, *inputs):
    with graph_mode():
        cell = nn.GraphCell(ms.load(str(path)))
        return cell(*(ms.Tensor(np.asarray(array, np.int32)) for array in inputs)).asnumpy()


@pytest.mark.slow
def test_plain_graphs_score_as_the_official_code(reader, tmp_path):
    """A prompt padded on the right over blocks in any order, and a token at place 0."""
    golden = golden_arrays(GOLDEN)
    options = GraphOptions(kernels="stock", dtype=DType.FLOAT32, num_blocks=8, block_size=16)
    MindirExporter().write(tmp_path, golden_config(GOLDEN), reader, options)
    ids = golden["input_ids"][0]
    padded = np.concatenate([ids, np.zeros(32 - len(ids) % 32, np.int64)])
    blocks = np.arange(7, 7 - len(padded) // 16, -1)
    slots = (blocks[:, None] * 16 + np.arange(16)).reshape(-1)
    scores = run(tmp_path / "prefill.mindir", padded[None], [len(ids)], slots)
    assert np.abs(scores[0] - golden["logits"][0, -1]).max() < 1e-4
    scores = run(tmp_path / "decode.mindir", ids[:1], [0], [3 * 16], [[3, -1]])
    assert np.abs(scores[0] - golden["logits"][0, 0]).max() < 1e-4


@pytest.mark.slow
def test_the_command_writes_fused_graphs_with_fixed_lengths(tmp_path):
    folder = tmp_path / "out"
    command = ("export", "mindir", "-o", str(folder), "--batch-size", "2", "--seq-length", "32", "--json")
    done = glm3(*command)
    assert done.returncode == 0, done.stderr
    prefill, decode = json.loads(done.stdout)["graphs"]
    assert prefill["inputs"] == {"input_ids": [2, 32], "lengths": [2], "slot_mapping": [64]}
    assert decode["inputs"]["block_tables"] == [2, 2]
    layers = prefill["operators"]["FlashAttentionScore"]
    assert layers == decode["operators"]["PagedAttention"] == decode["operators"]["ReshapeAndCache"]
    assert {path.name for path in folder.iterdir()} == {"prefill.mindir", "decode.mindir"}
    again = glm3(*command)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_sizes_that_no_fused_operator_takes_are_named(tmp_path):
    config = tiny_config(block_size=24)
    with pytest.raises(InvalidInputError) as caught:
        MindirExporter().write(tmp_path, config, ArrayReader({}), GraphOptions())
    text = str(caught.value)
    assert "FlashAttentionScore.head size" in text
    assert "set model_config.kv_channels" in text
    assert "PagedAttention.block_size" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("values", [{"kernels": "cpu"}, {"batch_size": 0}, {"num_blocks": -1}])
def test_wrong_options_are_refused(values):
    with pytest.raises(ConfigError):
        GraphOptions(**values)

"""MindSpore's own Ascend compiler, run among stand-in CANN libraries, on the training step of eight ranks.

It proves graphs, slices, collectives and strategy files. No kernel runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glm3.adapters.strategy.store import FileStrategyStore
from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.domain.layout.network_cut import NetworkCut, cut_network
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes, to_mindspore_name
from glm3.domain.tensors import DType
from glm3.domain.training.batch_plan import BatchPlan
from glm3.domain.training.setup import network_cut
from support.cann_stub import build_stub, plugin

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(plugin() is None, reason="needs MindSpore's Ascend plug-in, gcc and x86-64"),
]

SMALL = {
    "num_layers": 2,
    "padded_vocab_size": 256,
    "hidden_size": 128,
    "ffn_hidden_size": 192,
    "kv_channels": 32,
    "num_attention_heads": 4,
    "multi_query_group_num": 2,
    "seq_length": 64,
}
WIDE = {"num_layers": 1, "seq_length": 2048}
"""One layer of ChatGLM3-6B."""

TRAINED = (
    "run_glm3_6b.yaml",
    "run_glm3_6b_finetune_800T_A2_64G.yaml",
    "run_glm3_6b_finetune_2k_800T_A2_64G.yaml",
    "run_glm3_6b_multiturn_finetune_800T_A2_64G.yaml",
)
CONFIGS = Path(__file__).parents[2] / "configs/glm3"

PROGRAM = Path(__file__).parents[1] / "support/ascend_compile.py"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    return build_stub(tmp_path_factory.mktemp("cann"))


def compiled(stub, folder, *, config, plan, batch=8, seq=32, recompute=False, threshold=0, rank=0):
    job = {
        "config": config,
        "plan": plan,
        "batch": batch,
        "seq": seq,
        "recompute": recompute,
        "threshold": threshold,
        "strategy": str(folder / f"strategy_rank_{rank}.ckpt"),
    }
    paths = os.pathsep.join([stub["PYTHONPATH"], str(ROOT / "typings"), str(ROOT / "tests")])
    job_environment = {"PYTHONPATH": paths, "RANK_SIZE": "8", "RANK_ID": str(rank), "GLOG_v": "4"}
    done = subprocess.run(
        [sys.executable, PROGRAM, json.dumps(job)],
        env={**os.environ, **stub, **job_environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def shapes(report, operator, place=0):
    return {tuple(inputs[place][1]) for inputs in report["nodes"][operator]}


def network_names(names):
    """Return the network's own parameters, without states, by their names in checkpoints."""
    return {to_mindspore_name(name) for name in names if name.startswith("transformer.")}


def assert_strategy(folder, config, optimizer_threshold=0, **cut):
    """MindSpore's files cut each parameter as our own layouts do, stage by stage."""
    written = FileStrategyStore().read(folder)
    ours = cut_network(
        parameter_shapes(ModelConfig.from_mapping(config)),
        NetworkCut(optimizer_threshold=optimizer_threshold, **cut),
    )
    assert len(written.stages) == len(ours.stages)
    for expected, found in zip(ours.stages, written.stages, strict=True):
        assert network_names(found.layouts) == set(expected.layouts)
        for name, shape in expected.shapes.items():
            for rank in range(expected.stage * expected.num_ranks, (expected.stage + 1) * expected.num_ranks):
                assert written.slices(name, shape, rank) == ours.slices(name, shape, rank), (name, rank)


def test_data_parallel_with_optimizer_shard(stub, tmp_path):
    """The plan of the model card's finetuning files, on one layer of the published network."""
    report = compiled(
        stub,
        tmp_path,
        config=WIDE,
        plan={"data_parallel": 8, "optimizer_shard": True},
        seq=2048,
        recompute=True,
    )
    counts = report["counts"]
    assert counts["FlashAttentionScoreGrad"] == counts["SwigluGrad"] == 1
    assert counts["FlashAttentionScore"] == counts["Swiglu"] == 2  # once more for the backward pass
    assert shapes(report, "FlashAttentionScore") == {(1, 2048, 4096)}
    assert shapes(report, "FlashAttentionScore", 1) == {(1, 2048, 256)}
    assert {inputs[0][0] for inputs in report["nodes"]["MatMul"]} == {"FLOAT16"}
    # Every parameter but the embedding is one slice, gathered before it is used and reduced behind.
    assert counts["ReduceScatter"] == len(parameter_shapes(ModelConfig.from_mapping(WIDE))) - 1
    assert counts["AllGather"] >= counts["ReduceScatter"]
    assert shapes(report, "Adam") >= {(4608 // 8, 4096), (27392 // 8, 4096), (65024, 4096)}
    assert_strategy(tmp_path, WIDE, data_parallel=8, optimizer_parallel=True)


@pytest.mark.parametrize("name", TRAINED)
def test_the_model_cards_files(stub, tmp_path, name):
    """Read as the command reads them, for the eight ranks of their plan; of the 28 layers one is compiled."""
    config = YamlRunConfigReader().read(
        CONFIGS / name, ["use_parallel=True", "model.model_config.num_layers=1"]
    )
    network = config.model.model_config
    assert network.compute_dtype is DType.FLOAT16
    cut = network_cut(config, config.parallel_config.ranks)
    assert cut is not None
    assert cut.ranks_per_stage == 8
    batch = BatchPlan.of(config, 8)
    report = compiled(
        stub,
        tmp_path,
        config={key: getattr(network, key) for key in SMALL},
        plan={
            "data_parallel": cut.data_parallel,
            "model_parallel": cut.model_parallel,
            "optimizer_shard": cut.optimizer_parallel,
        },
        batch=batch.global_batch,
        seq=network.seq_length,
        recompute=config.recompute_config.recompute,
        threshold=64,
    )
    counts, rows = report["counts"], batch.global_batch // 8
    forward = {"FlashAttentionScore": 1, "RotaryPositionEmbedding": 2, "Swiglu": 1}
    for operator, number in forward.items():
        assert counts[operator] == 2 * number  # once more for the backward pass
        assert counts[operator + "Grad"] == number
        assert {inputs[0][0] for inputs in report["nodes"][operator]} == {"FLOAT16"}
    assert counts["RmsNorm"] == 6
    assert counts["RmsNormGrad"] == 3
    assert shapes(report, "FlashAttentionScore") == {(rows, network.seq_length, 4096)}
    assert shapes(report, "FlashAttentionScore", 1) == {(rows, network.seq_length, 256)}
    assert shapes(report, "Swiglu") == {(rows * network.seq_length, 27392)}
    assert {value[0] for inputs in report["nodes"]["MatMul"] for value in inputs[:2]} == {"FLOAT16"}
    # Query, key and value, dense, both of the feed-forward and the head; what is below 64 KB is whole.
    assert counts["ReduceScatter"] == 5
    assert counts["AllGather"] >= 5
    mapping = {key: getattr(network, key) for key in SMALL}
    assert_strategy(tmp_path, mapping, 64 * 1024, data_parallel=8, optimizer_parallel=True)


def test_data_and_model_parallel(stub, tmp_path):
    """Each of two ranks attends with half of the heads, and multiplies halves of the matrices."""
    report = compiled(stub, tmp_path, config=SMALL, plan={"data_parallel": 4, "model_parallel": 2})
    assert shapes(report, "FlashAttentionScore") == {(2, 32, 64)}
    assert shapes(report, "FlashAttentionScore", 1) == {(2, 32, 32)}
    assert shapes(report, "RotaryPositionEmbedding") == {(2, 32, 2, 32), (2, 32, 1, 32)}
    weights = {(128, 128), (128, 64), (192, 128), (128, 96)}
    assert shapes(report, "MatMul", 1) >= weights
    assert report["counts"]["AllReduce"] >= 2 * SMALL["num_layers"]
    assert shapes(report, "Adam") >= weights
    assert_strategy(tmp_path, SMALL, data_parallel=4, model_parallel=2)


@pytest.mark.parametrize("shared", [False, True], ids=["whole", "optimizer-shard"])
def test_pipeline_stages(stub, tmp_path, shared):
    """Two stages of a layer: each rank has its own layers, and sends and receives every micro-batch."""
    config = SMALL
    ways = {"data_parallel": 2, "model_parallel": 2, "pipeline_stage": 2}
    plan = {**ways, "micro_batches": 2, "optimizer_shard": shared}
    whole = cut_network(parameter_shapes(ModelConfig.from_mapping(config)), NetworkCut(**ways))
    for stage, rank in enumerate((0, 4)):
        report = compiled(stub, tmp_path, config=config, plan=plan, seq=16, rank=rank)
        counts = report["counts"]
        # Activations of every micro-batch go one way, their gradients the other, shared out over a stage.
        assert counts["Send"] == counts["Receive"] == 2
        assert report["nodes"]["Send"] == [[["FLOAT", [32 // 2, 128]]]] * 2
        assert counts["FlashAttentionScore"] == counts["FlashAttentionScoreGrad"] == 2
        assert shapes(report, "FlashAttentionScore") == {(2, 16, 64)}
        own = set(whole.stages[stage].layouts)
        assert network_names(report["parameters"]) == own
        assert counts["Adam"] == len(own)
        assert bool(counts.get("ReduceScatter")) >= shared
    assert_strategy(tmp_path, config, **ways, optimizer_parallel=shared)

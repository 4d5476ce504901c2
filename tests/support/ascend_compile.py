"""Run as a program among stand-in CANN libraries: compile a training step for Ascend and describe the graph.

Takes one JSON document: ``config``, ``plan``, ``batch``, ``seq``, ``recompute``, ``threshold`` (KB) and
``strategy``, the file that MindSpore writes its strategy to. ``RANK_ID`` says which rank's graph it is.
Prints one JSON document in the last line.
"""

from __future__ import annotations

import json
import resource
import sys
from time import perf_counter

import mindspore as ms
import numpy as np
from mindspore.communication import init

from glm3.adapters.mindspore.export.mindir import compile_training
from glm3.adapters.mindspore.export.parallel import ParallelPlan, shard_network
from glm3.adapters.mindspore.export.training import LossGraph, PipelineGraph, TrainingGraph
from glm3.adapters.mindspore.kernels.ascend.kernels import AscendKernels
from glm3.adapters.mindspore.kernels.ascend.reference import OperatorSettings
from glm3.adapters.mindspore.kernels.ascend.versions import OPERATORS
from glm3.adapters.mindspore.kernels.base import HeadLayout
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.domain.model_config import ModelConfig
from glm3.domain.tensors import DType

DESCRIBED = (
    *("FlashAttentionScore", "FlashAttentionScoreGrad", "RotaryPositionEmbedding", "Swiglu", "RmsNorm"),
    *("MatMul", "Gather", "AllGather", "ReduceScatter", "AllReduce", "Send", "Adam"),
)


def main() -> None:
    job = json.loads(sys.argv[1])
    plan = ParallelPlan(**job["plan"])
    config = ModelConfig.from_mapping(job["config"])
    plan.check(config, job["batch"])
    ms.set_device("Ascend")
    ms.set_context(mode=ms.GRAPH_MODE)
    init()
    ms.set_auto_parallel_context(
        parallel_mode="semi_auto_parallel",
        device_num=plan.num_ranks,
        full_batch=True,
        pipeline_stages=plan.pipeline_stage,
        enable_parallel_optimizer=plan.optimizer_shard,
        parallel_optimizer_config={"parallel_optimizer_threshold": job["threshold"]},
        strategy_ckpt_config={"save_file": job["strategy"], "only_trainable_params": False},
    )
    layout = HeadLayout.of(config)
    settings = OperatorSettings(layout, config.layernorm_epsilon, plan.data_parallel, plan.model_parallel)
    network = ChatGLMNetwork(config, AscendKernels(settings, OPERATORS, DType.FLOAT16), DType.FLOAT32)
    shard_network(network, plan)
    if job["recompute"]:
        for layer in network.layers:
            layer.recompute()
    if plan.pipeline_stage > 1:
        step: TrainingGraph = PipelineGraph(network, plan)
    else:
        step = TrainingGraph(LossGraph(network), network.kernels, plan.num_ranks)
    ids = ms.Tensor(np.ones((job["batch"], job["seq"]), np.int32))
    before = perf_counter()
    graph = compile_training(step, ids, ids, ms.Tensor(1.0, ms.float32), ms.Tensor(np.ones(10, np.float32)))
    report = {
        "seconds": perf_counter() - before,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "counts": graph.counts(),
        "parameters": sorted(graph.parameters),
        "nodes": {
            operator: [
                [[value.dtype, value.shape] for value in node.inputs if hasattr(value, "shape")]
                for node in graph.of(operator)
            ]
            for operator in DESCRIBED
        },
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()

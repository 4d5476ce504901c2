"""What MindSpore's front end makes of the network for Ascend, on a machine without it.

The graphs are compiled as far as their operators are inferred and read back from MindIR: which fused
operators they hold, how often, and with which layouts and precisions.
"""

from __future__ import annotations

import mindspore as ms
import pytest
from attrs import evolve

from glm3.adapters.mindspore.ascend_model import AscendModel
from glm3.adapters.mindspore.export.graphs import DecodeGraph, PrefillGraph
from glm3.adapters.mindspore.export.mindir import compile_graph, placeholder
from glm3.adapters.mindspore.export.parallel import ParallelPlan
from glm3.adapters.mindspore.export.training import LossGraph, TrainingGraph
from glm3.adapters.mindspore.kernels.ascend.rules import CAUSAL_MASK_SIZE, verify
from glm3.adapters.mindspore.kernels.ascend.versions import OPERATORS
from glm3.adapters.mindspore.training.lora import Adapter
from glm3.domain.errors import InvalidInputError, MultipleFaultsError
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes
from glm3.domain.tensors import DType
from glm3.domain.training.lora import LoRAConfig
from support.ascend import ascend_network
from support.models import tiny_config

BATCH, SEQ, LAYERS, BLOCKS = 2, 32, 2, 8
CONFIG = tiny_config(
    num_layers=LAYERS, hidden_size=64, kv_channels=16, ffn_hidden_size=48, padded_vocab_size=64
)
FULL = ModelConfig(block_size=128)
HEADS = (4, 2)

HOT = ("MatMul", "FlashAttentionScore", "PagedAttention", "RotaryPositionEmbedding", "Swiglu")
STOCK = ("BatchMatMul", "Softmax", "Sigmoid", "SiLU", "Rsqrt", "Mean", "ReduceMean")
DTYPES = {"FLOAT": "Float32", "FLOAT16": "Float16", "INT32": "Int32", "UINT8": "UInt8"}
OPERANDS = {
    "FlashAttentionScore": (0, 1, 2, 6),
    "PagedAttention": range(5),
    "ReshapeAndCache": range(5),
    "RmsNorm": range(2),
    "RotaryPositionEmbedding": range(3),
    "Swiglu": range(1),
}
SETTINGS = {"FlashAttentionScore": (*HEADS[:1], 2), "PagedAttention": HEADS}


def forward_counts(layers):
    return {"RmsNorm": 2 * layers + 1, "RotaryPositionEmbedding": 2 * layers, "Swiglu": layers}


@pytest.fixture(scope="module")
def network():
    return ascend_network(CONFIG, OPERATORS, DType.FLOAT16)


@pytest.fixture(scope="module")
def prefill(network):
    return compile_graph(
        PrefillGraph(network, BLOCKS),
        placeholder((BATCH, SEQ)),
        placeholder((BATCH,)),
        placeholder((BATCH * SEQ,)),
    )


@pytest.fixture(scope="module")
def decode(network):
    graph = DecodeGraph(network, BLOCKS)
    return compile_graph(graph, *[placeholder((BATCH,))] * 3, placeholder((BATCH, 4)))


@pytest.fixture(scope="module")
def training():
    """One layer: most of the time goes into the gradients."""
    network = ascend_network(evolve(CONFIG, num_layers=1), OPERATORS, DType.FLOAT16, DType.FLOAT32)
    ids = placeholder((BATCH, SEQ))
    numbers = (placeholder((), ms.float32), placeholder((10,), ms.float32))
    return compile_graph(TrainingGraph(LossGraph(network), network.kernels), ids, ids, *numbers)


def assert_counts(graph, expected):
    counts = graph.counts()
    assert {name: counts[name] for name in expected} == expected


def assert_half(graph, dtype="FLOAT16"):
    """Everything that multiplies, attends or gates is in half precision, forward and backward."""
    nodes = [node for node in graph.nodes if node.operator.removesuffix("Grad") in HOT]
    assert nodes
    assert {node.inputs[0].dtype for node in nodes} == {dtype}


def assert_no_stock(graph):
    assert not {name: n for name, n in graph.counts().items() if name in STOCK}


def assert_rules(graph):
    """Whatever inference let through, every fused call keeps the operator's rules."""
    for operator, places in OPERANDS.items():
        for node in graph.of(operator):
            operands = [node.inputs[place] for place in places]
            dtypes = [DTYPES[operand.dtype] for operand in operands]
            verify(operator, [o.shape for o in operands], dtypes, *SETTINGS.get(operator, ()))


def test_prefill(prefill):
    assert_counts(
        prefill,
        {
            **forward_counts(LAYERS),
            "FlashAttentionScore": LAYERS,
            "ReshapeAndCache": LAYERS,
            "PagedAttention": 0,
            "MatMul": 4 * LAYERS + 1,
        },
    )
    assert_half(prefill)
    assert_no_stock(prefill)
    assert_rules(prefill)


def test_flash_attention_is_causal_by_sparse_mode(prefill):
    for node in prefill.of("FlashAttentionScore"):
        query, key, value = node.inputs[:3]
        assert query.shape == (BATCH, SEQ, 4 * 16)
        assert key.shape == value.shape == (BATCH, SEQ, 2 * 16)
        assert node.inputs[6].shape == (CAUSAL_MASK_SIZE, CAUSAL_MASK_SIZE)
        assert node.inputs[-1] == 2


def test_only_the_last_token_of_a_prompt_is_scored(prefill):
    assert prefill.of("MatMul")[-1].inputs[0].shape == (BATCH, CONFIG.hidden_size)


def test_decode(decode):
    assert_counts(
        decode,
        {
            **forward_counts(LAYERS),
            "PagedAttention": LAYERS,
            "ReshapeAndCache": LAYERS,
            "FlashAttentionScore": 0,
            "MatMul": 4 * LAYERS + 1,
        },
    )
    assert_half(decode)
    assert_no_stock(decode)
    assert_rules(decode)
    pools = [value for name, value in decode.parameters.items() if name.startswith(("key_", "value_"))]
    assert [(pool.dtype, pool.shape) for pool in pools] == [("FLOAT16", (BLOCKS, 16, 2, 16))] * 2 * LAYERS


def test_decode_with_open_batch_and_table_in_bfloat16():
    network = ascend_network(CONFIG, OPERATORS, DType.BFLOAT16)
    graph = compile_graph(
        DecodeGraph(network, BLOCKS), *[placeholder((None,))] * 3, placeholder((None, None))
    )
    assert_counts(graph, {**forward_counts(LAYERS), "PagedAttention": LAYERS, "ReshapeAndCache": LAYERS})
    assert_half(graph, "BFLOAT16")
    for node in graph.of("PagedAttention"):
        assert [v.shape for v in node.inputs[3:5]] == [(-1, -1), (-1,)]


@pytest.mark.slow
def test_training_step_of_adapters():
    """Only the adapters are updated, and the fused gradients are still there to reach them."""
    network = ascend_network(CONFIG, OPERATORS, DType.FLOAT16, DType.FLOAT32)
    Adapter(network, LoRAConfig(), seed=0)
    ids = placeholder((BATCH, SEQ))
    numbers = (placeholder((), ms.float32), placeholder((10,), ms.float32))
    graph = compile_graph(TrainingGraph(LossGraph(network), network.kernels), ids, ids, *numbers)
    assert_counts(graph, {"Adam": 2 * LAYERS, "FlashAttentionScoreGrad": LAYERS})
    assert_half(graph)
    assert_no_stock(graph)


def test_training_step(training):
    """Every fused operator has its fused gradient, and each product two more."""
    forward = {**forward_counts(1), "FlashAttentionScore": 1}
    assert_counts(training, forward)
    assert_counts(training, {name + "Grad": number for name, number in forward.items()})
    assert_counts(training, {"MatMul": 3 * (4 + 1), "Adam": len(training.of("Assign"))})
    assert_half(training)
    assert_no_stock(training)
    assert_rules(training)


def test_loss_is_in_float32(training):
    assert {node.inputs[0].dtype for node in training.of("LogSoftmax")} == {"FLOAT"}


def test_a_wrong_pool_is_refused_before_the_operator_is_called():
    """MindSpore's inference passes a block of 24 places; the error names the rule and the setting."""
    config = tiny_config(kv_channels=16, block_size=24)
    model = AscendModel(ascend_network(config, ["ReshapeAndCache"]))
    with pytest.raises(InvalidInputError, match="expected a multiple of 16, found 24"):
        model.extend(model.new_cache(1, 8), [0], [[1, 2, 3]])


def test_a_plan_that_does_not_divide_names_every_rule():
    plan = ParallelPlan(data_parallel=3, model_parallel=4)
    with pytest.raises(MultipleFaultsError) as caught:
        plan.check(tiny_config(ffn_hidden_size=42), 8)
    text = str(caught.value)
    assert "runner_config.batch_size" in text
    assert "at most multi_query_group_num = 2" in text
    assert "ffn_hidden_size" in text


def test_stages_are_at_most_the_layers_and_have_enough_micro_batches():
    plan = ParallelPlan(pipeline_stage=3, micro_batches=2)
    with pytest.raises(MultipleFaultsError) as caught:
        plan.check(CONFIG, 8)
    text = str(caught.value)
    assert "at most num_layers = 2" in text
    assert "at least pipeline_stage = 3" in text


@pytest.mark.slow
def test_decode_of_the_published_network():
    """ChatGLM3-6B's own shape, with open batch and table; its weights take no memory."""
    network = ascend_network(FULL, OPERATORS, DType.FLOAT16)
    graph = compile_graph(
        DecodeGraph(network, BLOCKS), *[placeholder((None,))] * 3, placeholder((None, None))
    )
    counts = {**forward_counts(28), "PagedAttention": 28, "ReshapeAndCache": 28, "MatMul": 4 * 28 + 1}
    assert_counts(graph, counts)
    assert_half(graph)
    assert_no_stock(graph)
    assert {node.inputs[1].shape for node in graph.of("PagedAttention")} == {(BLOCKS, 128, 2, 128)}


@pytest.mark.slow
def test_prefill_at_the_published_width():
    """Two layers of ChatGLM3-6B with open batch and length."""
    network = ascend_network(evolve(FULL, num_layers=LAYERS), OPERATORS, DType.FLOAT16)
    graph = compile_graph(
        PrefillGraph(network, BLOCKS), placeholder((None, None)), placeholder((None,)), placeholder((None,))
    )
    counts = {**forward_counts(LAYERS), "FlashAttentionScore": LAYERS, "ReshapeAndCache": LAYERS}
    assert_counts(graph, {**counts, "PagedAttention": 0, "MatMul": 4 * LAYERS + 1})
    assert_half(graph)
    assert_no_stock(graph)
    for node in graph.of("FlashAttentionScore"):
        assert [value.shape for value in node.inputs[:3]] == [(-1, -1, 4096), (-1, -1, 256), (-1, -1, 256)]


@pytest.mark.slow
@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "lora"])
def test_recomputed_training_step_at_the_published_width(adapted):
    """One layer of ChatGLM3-6B, 2048 tokens."""
    network = ascend_network(evolve(FULL, num_layers=1), OPERATORS, DType.FLOAT16, DType.FLOAT32)
    if adapted:
        Adapter(network, LoRAConfig(), seed=0)
    network.layers[0].recompute()
    ids = placeholder((1, 2048))
    numbers = (placeholder((), ms.float32), placeholder((10,), ms.float32))
    graph = compile_graph(TrainingGraph(LossGraph(network), network.kernels), ids, ids, *numbers)
    # What comes before the first adapter learns nothing, and neither does its norm.
    norms = 2 if adapted else 3
    assert_counts(graph, {"FlashAttentionScoreGrad": 1, "RmsNormGrad": norms, "SwigluGrad": 1})
    # Once more for the backward pass, the final norm too; a frozen last product asks for no input.
    forward = {"FlashAttentionScore": 1, "RotaryPositionEmbedding": 2, "RmsNorm": 3}
    assert_counts(graph, {name: 2 * number for name, number in forward.items()})
    assert_counts(graph, {"Swiglu": 1 if adapted else 2})
    assert_half(graph)
    assert_no_stock(graph)
    key = graph.of("FlashAttentionScoreGrad")[0].inputs[1]
    assert (key.dtype, key.shape) == ("FLOAT16", (1, 2048, 256))
    expected = 2 if adapted else len(parameter_shapes(evolve(FULL, num_layers=1)))
    assert graph.counts()["Adam"] == expected


@pytest.mark.slow
def test_training_step_with_open_batch_and_length():
    """One layer of ChatGLM3-6B; one graph for batches of any shape."""
    network = ascend_network(evolve(FULL, num_layers=1), OPERATORS, DType.FLOAT16, DType.FLOAT32)
    ids = placeholder((None, None))
    numbers = (placeholder((), ms.float32), placeholder((10,), ms.float32))
    graph = compile_graph(TrainingGraph(LossGraph(network), network.kernels), ids, ids, *numbers)
    assert_counts(
        graph, {"FlashAttentionScore": 1, "FlashAttentionScoreGrad": 1, "SwigluGrad": 1, "RmsNormGrad": 3}
    )
    assert_half(graph)
    assert_no_stock(graph)
    assert [value.shape for value in graph.of("FlashAttentionScore")[0].inputs[:3]] == [
        (-1, -1, 4096),
        (-1, -1, 256),
        (-1, -1, 256),
    ]
    assert graph.counts()["Adam"] == len(parameter_shapes(evolve(FULL, num_layers=1)))

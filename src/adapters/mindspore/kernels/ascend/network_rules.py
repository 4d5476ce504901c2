"""Whether the fused operators take a network, found out before there is any call."""

from __future__ import annotations

from collections.abc import Collection

from glm3.adapters.mindspore.kernels.ascend.call_check import Shape
from glm3.adapters.mindspore.kernels.ascend.rules import CAUSAL_MASK_SIZE, verify
from glm3.domain.errors import Glm3Error, InvalidInputError, raise_faults
from glm3.domain.model_config import ModelConfig
from glm3.domain.tensors import DType

__all__ = ["verify_network"]


def verify_network(config: ModelConfig, dtype: DType, operators: Collection[str]) -> None:
    """Check a network's sizes against the operators it is to use, before there is any call.

    Raises:
        InvalidInputError: with every rule that a size breaks, its value, and the setting to change.
    """
    heads, kv_heads, dim = config.num_attention_heads, config.num_kv_heads, config.kv_channels
    half = {DType.FLOAT16: "Float16", DType.BFLOAT16: "BFloat16"}.get(dtype, "Float32")
    pool = (config.num_blocks, config.block_size, kv_heads, dim)
    query, key = heads * dim, kv_heads * dim
    mask, angles = (CAUSAL_MASK_SIZE,) * 2, (1, 1, 1, dim)
    calls: dict[str, tuple[list[Shape], list[str], tuple[int, ...]]] = {
        "FlashAttentionScore": (
            [(1, 1, query), (1, 1, key), (1, 1, key), mask],
            [half] * 3 + ["UInt8"],
            (heads, 2),
        ),
        "PagedAttention": (
            [(1, query), pool, pool, (1, 1), (1,)],
            [half] * 3 + ["Int32"] * 2,
            (heads, kv_heads),
        ),
        "ReshapeAndCache": ([(1, key), (1, key), pool, pool, (1,)], [half] * 4 + ["Int32"], ()),
        "RmsNorm": ([(1, config.hidden_size), (config.hidden_size,)], ["Float32"] * 2, ()),
        "RotaryPositionEmbedding": ([(1, 1, heads, dim), angles, angles], [half] * 3, ()),
        "Swiglu": ([(1, 2 * config.ffn_hidden_size)], [half], ()),
    }
    faults: list[Glm3Error] = []
    for operator, (shapes, dtypes, settings) in calls.items():
        if operator in operators:
            try:
                verify(operator, shapes, dtypes, *settings)
            except InvalidInputError as error:
                faults += getattr(error, "faults", (error,))
    raise_faults("the fused operators do not take this network", faults)

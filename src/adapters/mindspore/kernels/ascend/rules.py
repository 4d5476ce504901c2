"""What each fused operator of Ascend accepts, checked before MindSpore or the card sees a call.

MindSpore's own inference lets several wrong calls through (a key of another head size than the query's, a
block table for another batch, values of another width than the cache's, cosines of another width than the
heads'); on the card they end in an error without a name, or in wrong numbers. The limits are those that
MindSpore's API and CANN's operator references state. Shapes and the names of MindSpore's dtypes come in,
nothing of MindSpore is needed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from glm3.adapters.mindspore.kernels.ascend.call_check import CallCheck, Shape

__all__ = ["CAUSAL_MASK_SIZE", "RULES", "SPARSE_MODES", "verify"]

CAUSAL_MASK_SIZE = 2048
"""Side of the one mask that every causal sparse mode takes, whatever the lengths are."""

SPARSE_MODES = {2: "left-up causal", 3: "right-down causal"}

_HALF = ("Float16", "BFloat16")
_FLOAT = (*_HALF, "Float32")
_INDEX = ("Int32",)
_CACHE_LIMIT = 128 * 128  # numbers of one head in one block that the on-chip buffer takes


def verify(
    operator: str, shapes: Sequence[Shape], dtypes: Sequence[object], *settings: int, half: bool = True
) -> None:
    """Check one call; ``settings`` are the operator's own. Without ``half`` float32 is allowed everywhere.

    Raises:
        InvalidInputError: with every rule that the call breaks, its value, and the setting to change.
    """
    check = CallCheck(operator)
    floats = _HALF if half else _FLOAT
    RULES[operator](check, [tuple(s) for s in shapes], [str(d) for d in dtypes], floats, *settings)
    check.finish()


def _flash_attention(
    check: CallCheck,
    shapes: list[Shape],
    dtypes: list[str],
    floats: Sequence[str],
    heads: int,
    sparse_mode: int,
) -> None:
    """Check query ``(batch, seq, heads * dim)``, key, value and mask, in layout BSH."""
    query, key, value, mask = shapes
    check.require(
        sparse_mode in SPARSE_MODES, "sparse_mode", tuple(SPARSE_MODES), sparse_mode, "attend causally"
    )
    check.dtype("query", dtypes[0], floats)
    check.same("key dtype", dtypes[0], dtypes[1], "rotate queries and keys in one precision")
    check.same("value dtype", dtypes[0], dtypes[2], "project queries and values in one precision")
    check.same("attn_mask dtype", "UInt8", dtypes[3], "1 marks what is hidden")
    side = CAUSAL_MASK_SIZE
    check.same("attn_mask shape", (side, side), mask, "a causal sparse mode takes one mask for all lengths")
    if not check.ranks(query=(query, 3), key=(key, 3), value=(value, 3)):
        return
    check.same("value shape", key, value, "keys and values have as many heads")
    check.same("key batch", query[0], key[0], "queries and keys belong to the same sequences")
    check.require(1 <= query[0] <= 2048, "batch", "1 to 2048", query[0], "set runner_config.batch_size")
    for name, length in (("query", query[1]), ("key", key[1])):
        expected = f"1 to {512 * 1024}"
        check.require(
            1 <= length <= 512 * 1024, f"{name} sequence", expected, length, "set model_config.seq_length"
        )
    if sparse_mode == 2:
        check.same("key sequence", query[1], key[1], "left-up causal attention is within the same tokens")
    elif sparse_mode == 3:
        expected = f"at least {query[1]}"
        check.require(key[1] >= query[1], "key sequence", expected, key[1], "keys hold the new tokens too")
    check.require(1 <= heads <= 256, "head_num", "1 to 256", heads, "set model_config.num_attention_heads")
    if heads < 1 or query[2] % heads:
        check.require(False, "head_num", f"a divisor of {query[2]}", heads, "one width for every head")
        return
    dim = query[2] // heads
    check.require(
        dim % 16 == 0 and 0 < dim <= 512,
        "head size",
        "a multiple of 16, at most 512",
        dim,
        "set model_config.kv_channels, or use the stock kernels",
    )
    groups, rest = divmod(key[2], dim)
    check.require(
        rest == 0 and groups > 0 and heads % groups == 0,
        "key width",
        f"{dim} times a divisor of {heads} heads",
        key[2],
        "set model_config.multi_query_group_num; model_parallel must divide it",
    )


def _paged_attention(
    check: CallCheck, shapes: list[Shape], dtypes: list[str], floats: Sequence[str], heads: int, kv_heads: int
) -> None:
    """Check query ``(tokens, heads * dim)``, caches, block tables and lengths."""
    query, keys, values, tables, lengths = shapes
    check.dtype("query", dtypes[0], floats)
    check.same("key_cache dtype", dtypes[0], dtypes[1], "make the cache in the model's precision")
    check.same("value_cache dtype", dtypes[0], dtypes[2], "make the cache in the model's precision")
    check.dtype("block_tables", dtypes[3], _INDEX)
    check.dtype("context_lens", dtypes[4], _INDEX)
    if not check.ranks(
        query=(query, 2), key_cache=(keys, 4), block_tables=(tables, 2), context_lens=(lengths, 1)
    ):
        return
    check.same("value_cache shape", keys, values, "keys and values are kept alike")
    check.same("block_tables rows", query[0], tables[0], "one row of blocks for each token")
    check.same("context_lens", query[0], lengths[0], "one length for each token")
    check.require(tables[1] >= 1, "block_tables width", "at least 1", tables[1], "allocate a block first")
    check.same("key_cache heads", kv_heads, keys[2], "make the cache with multi_query_group_num heads")
    check.require(
        kv_heads > 0 and heads % kv_heads == 0,
        "kv_head_num",
        f"a divisor of {heads}",
        kv_heads,
        "set model_config.multi_query_group_num",
    )
    check.same("query width", heads * keys[3], query[1], "num_attention_heads times kv_channels")
    _check_blocks(check, keys[1], keys[3])


def _reshape_and_cache(
    check: CallCheck, shapes: list[Shape], dtypes: list[str], floats: Sequence[str]
) -> None:
    """Check key and value ``(tokens, kv_heads * dim)``, caches and slots."""
    key, value, keys, values, slots = shapes
    check.dtype("key", dtypes[0], floats)
    for name, dtype in zip(("value", "key_cache", "value_cache"), dtypes[1:4], strict=True):
        check.same(f"{name} dtype", dtypes[0], dtype, "make the cache in the model's precision")
    check.dtype("slot_mapping", dtypes[4], _INDEX)
    if not check.ranks(key=(key, 2), key_cache=(keys, 4)):
        return
    check.same("value shape", key, value, "keys and values have as many heads")
    check.same("value_cache shape", keys, values, "keys and values are kept alike")
    check.same("key width", keys[2] * keys[3], key[1], "heads times head size of the cache")
    check.same("slot_mapping", (key[0],), slots, "one slot for each token")
    _check_blocks(check, keys[1], keys[3])


def _check_blocks(check: CallCheck, block_size: int, dim: int) -> None:
    hint = "set model_config.block_size; 128 at most for heads of 128"
    check.require(block_size > 0 and block_size % 16 == 0, "block_size", "a multiple of 16", block_size, hint)
    expected = f"block_size times head size at most {_CACHE_LIMIT}"
    check.require(block_size * dim <= _CACHE_LIMIT, "block", expected, f"{block_size} times {dim}", hint)
    check.require(
        dim % 16 == 0 and 0 < dim <= 256, "head size", "a multiple of 16, at most 256", dim, "stock kernels"
    )


def _rms_norm(check: CallCheck, shapes: list[Shape], dtypes: list[str], _floats: Sequence[str]) -> None:
    """Check x and its weight; float32 is the usual precision of norms."""
    check.dtype("x", dtypes[0], _FLOAT)
    check.same("gamma dtype", dtypes[0], dtypes[1], "widen or narrow the weight with the activations")
    check.require(len(shapes[1]) == 1, "gamma shape", "one axis", shapes[1], "a norm's weight is a vector")
    check.same("gamma", shapes[0][-1:], shapes[1], "a norm's weight is as long as hidden_size")


def _rotary(check: CallCheck, shapes: list[Shape], dtypes: list[str], floats: Sequence[str]) -> None:
    """Check x ``(batch, seq, heads, dim)``, cos and sin ``(1, seq, 1, dim)``, in interleaved mode."""
    x, cos, sin = shapes
    check.dtype("x", dtypes[0], floats)
    check.same("cos dtype", dtypes[0], dtypes[1], "angles are kept in the model's precision")
    check.same("sin dtype", dtypes[0], dtypes[2], "angles are kept in the model's precision")
    if not check.rank("x", x, 4):
        return
    expected = (1, x[1], 1, x[3])
    check.same("cos shape", expected, cos, "interleaved pairs take one angle for all sequences and heads")
    check.same("sin shape", expected, sin, "interleaved pairs take one angle for all sequences and heads")
    check.require(
        x[3] % 2 == 0 and x[3] < 896, "head size", "even, below 896", x[3], "set model_config.kv_channels"
    )
    expected_heads = "batch and heads below 1000"
    found = f"{x[0]} and {x[2]}"
    check.require(
        x[0] < 1000 and x[2] < 1000, "x shape", expected_heads, found, "set runner_config.batch_size"
    )


def _swiglu(check: CallCheck, shapes: list[Shape], dtypes: list[str], floats: Sequence[str]) -> None:
    """Check the joined gate and value ``(tokens, 2 * ffn)``."""
    check.dtype("x", dtypes[0], floats)
    width = shapes[0][-1]
    check.require(width % 2 == 0 and width > 0, "x width", "even", width, "set model_config.ffn_hidden_size")


def _weight_quant_matmul(
    check: CallCheck, shapes: list[Shape], dtypes: list[str], floats: Sequence[str], group: int
) -> None:
    """Check x ``(tokens, in)``, levels ``(in, out)``, scale, offset ``(out,)`` or ``(in / group, out)``."""
    x, weight, scale, offset = shapes
    check.dtype("x", dtypes[0], floats)
    check.dtype("weight", dtypes[1], ("Int8", "QInt4x2", "Int4"))
    check.same("antiquant_scale dtype", dtypes[0], dtypes[2], "scales are kept in the model's precision")
    check.same("antiquant_offset dtype", dtypes[0], dtypes[3], "offsets are kept in the model's precision")
    if not check.ranks(x=(x, 2), weight=(weight, 2)):
        return
    check.same("weight rows", x[1], weight[0], "the product's inner length")
    for axis, name in ((x[1], "inner"), (weight[1], "outer")):
        check.require(axis <= 65535, f"{name} length", "at most 65535", axis, "split the matrix")
    if group:
        expected = f"a multiple of 32 below {x[1]} that divides it"
        check.require(
            group % 32 == 0 and 32 <= group < x[1] and x[1] % group == 0,
            "antiquant_group_size",
            expected,
            group,
            "quantise in groups of 32, 64 or 128, or by channel",
        )
        wanted: Shape = (x[1] // group, weight[1]) if group > 0 else ()
    else:
        wanted = (weight[1],)
    check.same("antiquant_scale shape", wanted, scale, "one scale for each channel or group")
    check.same("antiquant_offset shape", wanted, offset, "one offset for each channel or group")


RULES: Mapping[str, Callable[..., None]] = {
    "FlashAttentionScore": _flash_attention,
    "PagedAttention": _paged_attention,
    "ReshapeAndCache": _reshape_and_cache,
    "RmsNorm": _rms_norm,
    "RotaryPositionEmbedding": _rotary,
    "Swiglu": _swiglu,
    "WeightQuantBatchMatmul": _weight_quant_matmul,
}
"""The rules of each operator, by MindSpore's name for it."""

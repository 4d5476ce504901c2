"""What the fused Ascend operators refuse, by the rules that MindSpore's own inference does not know."""

from __future__ import annotations

import pytest

from glm3.adapters.mindspore.kernels.ascend.rules import CAUSAL_MASK_SIZE, verify
from glm3.adapters.mindspore.kernels.ascend.versions import OPERATORS, check_pair, usable_operators
from glm3.domain.errors import BackendError, InvalidInputError, MultipleFaultsError

MASK = (CAUSAL_MASK_SIZE, CAUSAL_MASK_SIZE)
HALF, WORD = "Float16", "Int32"
POOL = (9, 16, 2, 128)

CALLS = {
    "FlashAttentionScore": (
        [(2, 24, 512), (2, 24, 256), (2, 24, 256), MASK],
        [HALF, HALF, HALF, "UInt8"],
        (4, 2),
    ),
    "PagedAttention": ([(3, 512), POOL, POOL, (3, 5), (3,)], [HALF, HALF, HALF, WORD, WORD], (4, 2)),
    "ReshapeAndCache": ([(7, 256), (7, 256), POOL, POOL, (7,)], [HALF, HALF, HALF, HALF, WORD], ()),
    "RmsNorm": ([(7, 512), (512,)], ["Float32", "Float32"], ()),
    "RotaryPositionEmbedding": ([(2, 24, 4, 128), (1, 24, 1, 128), (1, 24, 1, 128)], [HALF] * 3, ()),
    "Swiglu": ([(7, 20)], [HALF], ()),
    "WeightQuantBatchMatmul": ([(7, 256), (256, 20), (2, 20), (2, 20)], [HALF, "Int8", HALF, HALF], (128,)),
}


@pytest.mark.parametrize("operator", CALLS)
def test_right_calls_pass(operator):
    shapes, dtypes, settings = CALLS[operator]
    verify(operator, shapes, dtypes, *settings)


WRONG_SHAPES = [
    ("FlashAttentionScore", 1, (2, 24, 192), "key width"),
    ("FlashAttentionScore", 1, (3, 24, 256), "key batch"),
    ("FlashAttentionScore", 1, (2, 23, 256), "key sequence"),
    ("FlashAttentionScore", 2, (2, 24, 128), "value shape"),
    ("FlashAttentionScore", 3, (24, 24), "attn_mask shape"),
    ("FlashAttentionScore", 0, (2, 24, 4 * 24), "head size"),
    ("FlashAttentionScore", 0, (2, 24, 510), "head_num"),
    ("FlashAttentionScore", 0, (2, 4, 24, 128), "query shape"),
    ("PagedAttention", 3, (2, 5), "block_tables rows"),
    ("PagedAttention", 4, (2,), "context_lens"),
    ("PagedAttention", 0, (3, 500), "query width"),
    ("PagedAttention", 2, (9, 16, 2, 64), "value_cache shape"),
    ("PagedAttention", 1, (9, 16, 4, 128), "key_cache heads"),
    ("PagedAttention", 1, (9, 24, 2, 128), "block_size"),
    ("PagedAttention", 1, (9, 256, 2, 128), "block"),
    ("ReshapeAndCache", 0, (7, 128), "key width"),
    ("ReshapeAndCache", 1, (7, 128), "value shape"),
    ("ReshapeAndCache", 4, (6,), "slot_mapping"),
    ("RmsNorm", 1, (256,), "gamma"),
    ("RotaryPositionEmbedding", 1, (1, 24, 1, 64), "cos shape"),
    ("RotaryPositionEmbedding", 2, (2, 24, 1, 128), "sin shape"),
    ("RotaryPositionEmbedding", 0, (1000, 24, 4, 128), "x shape"),
    ("Swiglu", 0, (7, 21), "x width"),
    ("WeightQuantBatchMatmul", 1, (255, 20), "weight rows"),
    ("WeightQuantBatchMatmul", 2, (20,), "antiquant_scale shape"),
]


@pytest.mark.parametrize(("operator", "place", "shape", "field"), WRONG_SHAPES)
def test_a_wrong_shape_is_named(operator, place, shape, field):
    shapes, dtypes, settings = CALLS[operator]
    assert f"{operator}.{field}" in fields_of(operator, replaced(shapes, place, shape), dtypes, settings)


@pytest.mark.parametrize("operator", CALLS)
def test_every_wrong_dtype_is_named(operator):
    """Each operand in turn gets a dtype that no operator takes."""
    shapes, dtypes, settings = CALLS[operator]
    for place in range(len(dtypes)):
        found = fields_of(operator, shapes, replaced(dtypes, place, "Float64"), settings)
        assert any(field.endswith("dtype") for field in found)


@pytest.mark.parametrize("group", [16, 96, 256, 100])
def test_groups_of_quantised_weights(group):
    shapes, dtypes, _ = CALLS["WeightQuantBatchMatmul"]
    found = fields_of("WeightQuantBatchMatmul", shapes, dtypes, (group,))
    assert "WeightQuantBatchMatmul.antiquant_group_size" in found


def test_float32_passes_only_without_half():
    shapes = CALLS["Swiglu"][0]
    verify("Swiglu", shapes, ["Float32"], half=False)
    with pytest.raises(InvalidInputError, match=r"set model_config\.compute_dtype"):
        verify("Swiglu", shapes, ["Float32"])


def test_faults_come_together_with_value_and_setting():
    shapes, dtypes, settings = CALLS["PagedAttention"]
    wrong = replaced(replaced(shapes, 3, (2, 5)), 1, (9, 24, 2, 128))
    with pytest.raises(MultipleFaultsError) as caught:
        verify("PagedAttention", wrong, dtypes, *settings)
    text = str(caught.value)
    assert "expected a multiple of 16, found 24" in text
    assert "model_config.block_size" in text
    assert "block_tables rows" in text


def test_all_operators_are_usable_in_the_tested_release():
    assert usable_operators("2.10.0", "8.2.RC1", OPERATORS) == (frozenset(OPERATORS), ())


@pytest.mark.parametrize(
    ("mindspore", "cann", "reason"),
    [
        ("2.4.1", "8.0.RC3", "Swiglu needs MindSpore 2.5, here is 2.4.1"),
        ("2.10.0", "7.0.0", "Swiglu needs CANN 8.0, here is 7.0.0"),
    ],
)
def test_old_releases_lack_operators(mindspore, cann, reason):
    usable, reasons = usable_operators(mindspore, cann, OPERATORS)
    assert "Swiglu" not in usable
    assert reason in reasons


def test_an_operator_that_the_package_lacks_is_not_used():
    usable, reasons = usable_operators("2.10.0", None, set(OPERATORS) - {"Swiglu"})
    assert usable == set(OPERATORS) - {"Swiglu"}
    assert reasons == ("Swiglu is not in MindSpore 2.10.0",)


def test_a_pair_that_does_not_match_is_refused():
    check_pair("2.10.0", None)
    check_pair("2.10.0", "8.3.RC1")
    with pytest.raises(BackendError, match="MindSpore and CANN do not match") as caught:
        check_pair("2.10.0", "8.0.RC1")
    assert caught.value.found == "8.0.RC1"


def fields_of(operator, shapes, dtypes, settings):
    with pytest.raises(InvalidInputError) as caught:
        verify(operator, shapes, dtypes, *settings)
    faults = getattr(caught.value, "faults", (caught.value,))
    assert all(fault.hint for fault in faults)
    return {fault.field for fault in faults}


def replaced(items, place, item):
    return [*items[:place], item, *items[place + 1 :]]

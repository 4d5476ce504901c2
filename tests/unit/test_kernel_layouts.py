"""A kernel set made anew for a part of the heads."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from glm3.adapters.mindspore.kernels.ascend.kernels import AscendKernels
from glm3.adapters.mindspore.kernels.ascend.reference import OperatorSettings
from glm3.adapters.mindspore.kernels.base import HeadLayout
from glm3.domain.tensors import DType
from support.models import kernel_set, tiny_config

CONFIG = tiny_config()
WHOLE, HALF = HeadLayout.of(CONFIG), HeadLayout(2, 1, CONFIG.kv_channels)


def set_called(name):
    if name == "ascend":  # without its operators: what it computes with where there are none
        return AscendKernels(OperatorSettings(WHOLE, CONFIG.layernorm_epsilon), (), DType.FLOAT32)
    return kernel_set(name, CONFIG)


@pytest.mark.parametrize("name", ["stock", "cpu", "ascend"])
def test_the_heads_of_both_halves_are_those_of_the_whole(name):
    """Query heads 0 and 1 share the first key and value head, 2 and 3 the second."""
    kernels, width, seq = set_called(name), CONFIG.kv_channels, 5
    half = kernels.with_layout(HALF)
    assert type(half) is type(kernels)
    drawn = np.random.default_rng(3).standard_normal((seq, WHOLE.query_size + 2 * WHOLE.kv_size))
    qkv = drawn.astype(np.float32)
    angles = np.linspace(0, 1, seq * CONFIG.rotary_dim // 2, dtype=np.float32).reshape(seq, -1)
    cos, sin = ms.Tensor(np.cos(angles)), ms.Tensor(np.sin(angles))

    def attended(kernels, columns):
        return kernels.attention(ms.Tensor(columns), cos, sin, 1, seq).astype(ms.float32).asnumpy()

    parts = np.split(qkv, np.cumsum([2 * width, 2 * width, width, width, width]), 1)
    halves = [np.concatenate(parts[i::2], 1) for i in range(2)]
    found = np.concatenate([attended(half, columns) for columns in halves], 1)
    np.testing.assert_allclose(found, attended(kernels, qkv), rtol=1e-5, atol=1e-6)

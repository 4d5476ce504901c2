"""Drawn packed weights."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from glm3.domain.quantization import Levels, QuantScheme

SCHEMES = [
    *(QuantScheme(4, group, symmetric) for group in (32, 64, 128) for symmetric in (True, False)),
    *(QuantScheme(8, group) for group in (32, 64, 128)),
    QuantScheme(4),
    QuantScheme(8),
]


def random_levels(seed: int, scheme: QuantScheme, out_features: int, in_features: int) -> Levels:
    generator = np.random.default_rng(seed)
    groups = 1 if scheme.group is None else -(-in_features // scheme.group)
    levels = generator.integers(1 if scheme.bits == 8 else 0, scheme.levels, (out_features, in_features))
    scales = (0.1 * generator.standard_normal((out_features, groups))).astype(scheme.scale_dtype)
    zeros = None
    if not scheme.symmetric:
        zeros = generator.integers(0, 241, (out_features, groups)).astype(np.uint8)
    return Levels(levels.astype(np.uint8), scales, zeros)


@st.composite
def rounded_weights(draw, *, largest: int = 150) -> tuple[QuantScheme, Levels]:
    scheme = draw(st.sampled_from(SCHEMES))
    sizes = draw(st.integers(1, 40)), draw(st.integers(1, largest))
    return scheme, random_levels(draw(st.integers(0, 2**32 - 1)), scheme, *sizes)

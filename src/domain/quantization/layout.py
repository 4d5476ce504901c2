"""Where each level and scale of a packed weight is stored: what kernels read and files hold, byte for byte.

Sixteen output channels form a row block, so that one vector of dot products takes four inputs for all of
them and an input is broadcast from memory; inside a block the inputs follow each other. Eight-bit levels:
vector ``i`` of 64 bytes holds at ``4 * row + j`` the level of input ``4 * i + j``. Four-bit levels: its byte
``4 * row + j`` holds input ``8 * i + j`` in the low half and ``8 * i + 4 + j`` in the high half. Scales and
zero points of a block are ``(groups, 16)``. Channels are padded to whole blocks, inputs to whole groups, both
with what stands for 0. The layout is the same on every processor.
"""

from __future__ import annotations

from math import prod

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.domain.quantization.scheme import QuantScheme

__all__ = [
    "LAYOUT_VERSION",
    "ROW_BLOCK",
    "SMALLEST_GROUP",
    "PackedShapes",
    "deinterleave",
    "interleave",
    "packed_shapes",
    "per_group",
    "to_blocks",
]

LAYOUT_VERSION = 1
"""Stored with every file of packed weights; raised when the meaning of a byte changes."""

ROW_BLOCK = 16
SMALLEST_GROUP = 32  # inputs of whole channels are padded to it too

Bytes = NDArray[np.uint8]


@frozen
class PackedShapes:
    """The stored arrays of one weight: ``data`` uint8, ``scales`` as the scheme says, ``zeros`` uint8."""

    data: tuple[int, int]
    scales: tuple[int, int, int]
    zeros: tuple[int, int, int] | None
    scale_bytes: int

    @property
    def nbytes(self) -> int:
        zeros = 0 if self.zeros is None else prod(self.zeros)
        return prod(self.data) + self.scale_bytes * prod(self.scales) + zeros


def packed_shapes(scheme: QuantScheme, out_features: int, in_features: int) -> PackedShapes:
    """Return the shapes that a weight ``(out, in)`` is stored in."""
    blocks = -(-out_features // ROW_BLOCK)
    scales = (blocks, _groups(scheme, in_features), ROW_BLOCK)
    return PackedShapes(
        data=(blocks, ROW_BLOCK * _padded_inputs(scheme, in_features) * scheme.bits // 8),
        scales=scales,
        zeros=None if scheme.symmetric else scales,
        scale_bytes=scheme.scale_dtype.itemsize,
    )


def interleave(levels: Bytes, scheme: QuantScheme) -> Bytes:
    """Store ``levels (out, in)`` as ``(blocks, bytes)``."""
    out_features, in_features = levels.shape
    filler = scheme.middle if scheme.symmetric else 0
    padding = (-out_features % ROW_BLOCK, _padded_inputs(scheme, in_features) - in_features)
    padded = np.pad(levels, [(0, padding[0]), (0, padding[1])], constant_values=filler)
    blocks = len(padded) // ROW_BLOCK
    if scheme.bits == 8:
        return padded.reshape(blocks, ROW_BLOCK, -1, 4).transpose(0, 2, 1, 3).reshape(blocks, -1)
    halves = padded.reshape(blocks, ROW_BLOCK, -1, 2, 4).transpose(3, 0, 2, 1, 4)
    joined: Bytes = halves[0] | (halves[1] << 4)
    return joined.reshape(blocks, -1)


def deinterleave(data: Bytes, scheme: QuantScheme, out_features: int, in_features: int) -> Bytes:
    """Return the levels ``(out, in)`` that :func:`interleave` stored."""
    blocks = len(data)
    if scheme.bits == 8:
        levels = data.reshape(blocks, -1, ROW_BLOCK, 4).transpose(0, 2, 1, 3)
    else:
        vectors = data.reshape(blocks, -1, ROW_BLOCK, 4)
        levels = np.stack([vectors & 15, vectors >> 4], axis=2).transpose(0, 3, 1, 2, 4)
    return np.ascontiguousarray(levels.reshape(blocks * ROW_BLOCK, -1)[:out_features, :in_features])


def to_blocks(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Store scales or zero points ``(out, groups)`` as ``(blocks, groups, 16)``."""
    padded = np.pad(values, [(0, -len(values) % ROW_BLOCK), (0, 0)])
    return np.ascontiguousarray(padded.reshape(-1, ROW_BLOCK, values.shape[1]).transpose(0, 2, 1))


def per_group(blocks: NDArray[np.generic], out_features: int) -> NDArray[np.generic]:
    """Return the ``(out, groups)`` that :func:`to_blocks` stored."""
    rows = blocks.transpose(0, 2, 1).reshape(-1, blocks.shape[1])
    return np.ascontiguousarray(rows[:out_features])


def _padded_inputs(scheme: QuantScheme, in_features: int) -> int:
    group = scheme.group or SMALLEST_GROUP
    return -(-in_features // group) * group


def _groups(scheme: QuantScheme, in_features: int) -> int:
    return 1 if scheme.group is None else -(-in_features // scheme.group)

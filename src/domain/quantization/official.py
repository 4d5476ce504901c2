"""The rounded weights that ChatGLM's own code saves, in four or eight bits with one scale a channel.

The matrices of the blocks alone are rounded: ``NAME`` holds int8, ``(out, in)``, or ``(out, in / 2)`` with
the even input in the upper four bits; ``NAME_scale (out,)`` holds the scales. Levels are signed.
Source: ``quantization.py`` of the published model folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm3.domain.errors import CheckpointError
from glm3.domain.quantization.packed import Levels, PackedWeight, pack
from glm3.domain.quantization.scheme import QuantScheme
from glm3.domain.quantization.stored import MatrixForm
from glm3.domain.tensors import Array, DType, TensorSpec, to_float32

__all__ = ["SCALE_SUFFIX", "official_forms", "repack"]

SCALE_SUFFIX = "_scale"


def official_forms(tensors: Mapping[str, TensorSpec], bits: int) -> dict[str, MatrixForm]:
    """Return the matrices that are stored with a scale, by name, as ``bits`` bits.

    Raises:
        CheckpointError: one of them has no such tensor, or one of another shape or dtype.
    """
    forms: dict[str, MatrixForm] = {}
    for name in (scale[: -len(SCALE_SUFFIX)] for scale in tensors if scale.endswith(f"weight{SCALE_SUFFIX}")):
        weight, scales = tensors.get(name), tensors[name + SCALE_SUFFIX]
        if weight is None or weight.dtype is not DType.INT8 or len(weight.shape) != 2:
            raise CheckpointError(
                "has scales, but is no rounded matrix",
                field=name,
                expected="int8 (out, in), or (out, in / 2) for four bits",
                found="nothing" if weight is None else f"{weight.dtype.value} {weight.shape}",
            )
        if scales.shape != weight.shape[:1] or not scales.dtype.is_floating:
            raise CheckpointError(
                "not one scale a channel",
                field=scales.name,
                expected=f"floating-point numbers {weight.shape[:1]}",
                found=f"{scales.dtype.value} {scales.shape}",
            )
        out_features, stored = weight.shape
        forms[name] = MatrixForm(QuantScheme(bits), (out_features, stored * 8 // bits))
    return forms


def repack(form: MatrixForm, name: str, weight: Array, scales: Array, scale_dtype: DType) -> PackedWeight:
    """Bring a matrix into the packed layout; every number keeps its value.

    Raises:
        CheckpointError: a level is one that ChatGLM's code does not write, or a scale is not finite.
    """
    stored: NDArray[np.uint8] = np.ascontiguousarray(weight).view(np.uint8)
    wide: NDArray[Any] = np.ascontiguousarray(to_float32(scales, scale_dtype)).reshape(-1, 1)
    if not np.isfinite(wide).all():
        raise CheckpointError("holds NaN or an infinity", field=name + SCALE_SUFFIX)
    levels: NDArray[np.uint8] = np.empty(form.shape, np.uint8)
    if form.scheme.bits == 4:
        levels[:, 0::2] = (stored >> 4) ^ 8
        levels[:, 1::2] = (stored & 15) ^ 8
    else:
        levels[:] = stored ^ 128
        if not levels.all():
            raise CheckpointError(
                "holds a level that is never written", field=name, expected="-127 to 127", found=-128
            )
    return pack(Levels(levels, wide), form.scheme)

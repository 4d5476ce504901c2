"""Pass numbers between numpy carriers and MindSpore tensors."""

from __future__ import annotations

import mindspore as ms
import numpy as np

from glm3.adapters.mindspore.kernels.base import Tensor
from glm3.domain.tensors import Array, DType

__all__ = ["dtype_of", "to_carrier", "to_tensor"]


def dtype_of(tensor: Tensor) -> DType:
    """Return a tensor's element type."""
    return DType(str(tensor.dtype).lower())


def to_tensor(array: Array, dtype: DType) -> Tensor:
    """Wrap an array that carries ``dtype``, without a copy where it is contiguous."""
    tensor = ms.Tensor.from_numpy(np.ascontiguousarray(array))
    return tensor.view(ms.bfloat16) if dtype is DType.BFLOAT16 else tensor


def to_carrier(tensor: Tensor) -> Array:
    """Return a copy of a tensor's numbers; bfloat16 as the ``uint16`` that carries it."""
    array = tensor.asnumpy()
    return np.array(array.view(np.uint16) if tensor.dtype == ms.bfloat16 else array)

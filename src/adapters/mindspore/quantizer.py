"""The rounding port over the native kernels, on all cores."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from glm3.adapters.mindspore.kernels.compiler import kernel_library
from glm3.adapters.mindspore.kernels.cores import physical_cores
from glm3.adapters.mindspore.runtime import import_mindspore
from glm3.domain.errors import BackendError, InvalidInputError
from glm3.domain.quantization import PackedWeight, QuantScheme
from glm3.domain.tensors import Array, DType, to_float32

__all__ = ["NativeQuantizer"]

_log = logging.getLogger(__name__)


class NativeQuantizer:
    """See :class:`glm3.domain.ports.quantizer.Quantizer`; the kernels are compiled at the first weight."""

    def __init__(self, kernel_cache: Path, threads: int | None = None) -> None:
        self._kernel_cache = kernel_cache
        self._threads = threads
        self._library: Path | None = None

    def quantize(self, array: Array, dtype: DType, scheme: QuantScheme, name: str) -> PackedWeight:
        import_mindspore()
        from glm3.adapters.mindspore.inference.decoder import quantize_natively

        if array.ndim != 2 or 0 in array.shape:
            raise InvalidInputError(
                "not a weight matrix", field=name, expected="(out, in)", found=array.shape
            )
        if dtype not in (DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16):
            array, dtype = to_float32(array, dtype), DType.FLOAT32
        return quantize_natively(self._kernels(), np.ascontiguousarray(array), dtype, scheme, name)

    def _kernels(self) -> Path:
        if self._library is None:
            from glm3.adapters.mindspore.inference.decoder import set_threads

            build = kernel_library(self._kernel_cache, report=_log.warning)
            if build is None:
                raise BackendError(
                    "the CPU kernels are not compiled and no compiler is here",
                    hint="install g++ or clang++, or set CXX; GLM3_BACKEND=numpy rounds without, slowly",
                )
            self._library = build.path
            set_threads(self._library, self._threads or physical_cores())
        return self._library

"""The model backend port over MindSpore."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from glm3.adapters.mindspore.kernels.compiler import kernel_library
from glm3.adapters.mindspore.kernels.cores import physical_cores
from glm3.adapters.mindspore.runtime import prepare
from glm3.domain.errors import BackendError, ConfigError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.ports.model import LanguageModel
from glm3.domain.quantization import QuantScheme
from glm3.domain.quantization.rounded_checkpoint import RoundedCheckpoint, rounded_checkpoint
from glm3.domain.tensors import DType

if TYPE_CHECKING:
    from glm3.adapters.mindspore.kernels.base import Kernels

__all__ = ["KERNEL_SETS", "MindSporeBackend"]

KERNEL_SETS = ("auto", "cpu", "stock", "ascend")

_THREADS_PER_CORE = 4
"""More is a slip of the hand: the threads of a core share its units, and each keeps buffers of its own."""

_log = logging.getLogger(__name__)


class MindSporeBackend:
    """Build ChatGLM3 on MindSpore; importing it is put off until a model is loaded.

    ``kernel_cache`` is the folder of compiled kernels; without one nothing is compiled. ``cann_version`` says
    which CANN is installed, None if that is not known.
    """

    def __init__(
        self, kernel_cache: Path | None = None, cann_version: Callable[[], str | None] = lambda: None
    ) -> None:
        self._kernel_cache = kernel_cache
        self._cann_version = cann_version

    def load(
        self, config: ModelConfig, weights: CheckpointReader | None, options: LoadOptions
    ) -> LanguageModel:
        """Build the network and fill it with ``weights``, or with random numbers where there are none.

        Raises:
            BackendError: there is no such kernel set, it cannot be built here, or it cannot do what the
                options ask.
            ParameterMismatchError: the weights do not fit the configuration.
            ConfigError: they are rounded by another scheme than the options ask, or the threads are more
                than are of use on this machine.
        """
        _require_threads(options.threads)
        if options.kernels not in KERNEL_SETS:
            raise BackendError(
                "no such kernel set", expected=", ".join(KERNEL_SETS), found=repr(options.kernels)
            )
        if options.kernels == "ascend":
            return self._load_on_ascend(config, weights, options)
        prepare(options.threads)
        rounded = None if weights is None else rounded_checkpoint(weights, config.quantization_bit)
        if rounded is not None:
            rounded.require_scheme(options.scheme)
            if options.kernels != "stock" and not options.adaptable:
                return self._load_packed(config, rounded, options)
            weights = rounded  # operators with gradients, and the stock ones, take what the levels stand for
        elif options.scheme is not None:
            return self._load_rounded(config, weights, options, options.scheme)
        from glm3.adapters.mindspore.loading import load_weights
        from glm3.adapters.mindspore.model import MindSporeModel
        from glm3.adapters.mindspore.network import ChatGLMNetwork

        network = ChatGLMNetwork(config, self._kernels(config, options), options.dtype)
        if weights is None:
            network.initialize(options.seed)
        else:
            load_weights(network, weights)
        return MindSporeModel(network, options.cache_format)

    def _load_on_ascend(
        self, config: ModelConfig, weights: CheckpointReader | None, options: LoadOptions
    ) -> LanguageModel:
        """Compute with fused operators on a card; half precision is the only one they take."""
        if options.kv_cache not in (None, "fp16"):
            raise BackendError(
                "the Ascend kernels keep keys and values in half precision",
                expected="fp16",
                found=options.kv_cache,
            )
        prepare(options.threads, "Ascend")
        from glm3.adapters.mindspore.ascend_model import AscendModel
        from glm3.adapters.mindspore.kernels.ascend.quantized import quantize_network
        from glm3.adapters.mindspore.kernels.ascend.selection import ascend_kernels
        from glm3.adapters.mindspore.loading import load_weights
        from glm3.adapters.mindspore.network import ChatGLMNetwork

        if weights is not None:
            weights = rounded_checkpoint(weights, config.quantization_bit) or weights
        dtype = DType.FLOAT16 if options.dtype is DType.FLOAT32 else options.dtype
        kernels = ascend_kernels(config, dtype, cann=self._cann_version(), warn=_warn_once)
        network = ChatGLMNetwork(config, kernels, dtype)
        if weights is None:
            network.initialize(options.seed)
        else:
            load_weights(network, weights)
        if options.scheme is not None:
            quantize_network(network, options.scheme)
        return AscendModel(network)

    def _load_rounded(
        self,
        config: ModelConfig,
        weights: CheckpointReader | None,
        options: LoadOptions,
        scheme: QuantScheme,
    ) -> LanguageModel:
        """Round the weights while they are loaded; the native kernels alone compute with them."""
        if options.kernels == "stock":
            raise BackendError("the stock operators take no rounded weights", hint="leave out either option")
        if weights is None:
            raise BackendError("there is no checkpoint to round", hint="leave the quantisation out")
        from glm3.adapters.mindspore.inference.model import NativeModel
        from glm3.adapters.mindspore.inference.packing import pack_weights

        library = self._library(options.threads)
        return NativeModel(
            config, pack_weights(config, weights, scheme, library), library, options.cache_format
        )

    def _load_packed(
        self, config: ModelConfig, rounded: RoundedCheckpoint, options: LoadOptions
    ) -> LanguageModel:
        """Take weights that are rounded already where they are."""
        from glm3.adapters.mindspore.inference.model import NativeModel
        from glm3.adapters.mindspore.inference.packing import packed_weights

        library = self._library(options.threads)
        cache_format = evolve(options, quant=rounded.scheme.name).cache_format
        return NativeModel(config, packed_weights(config, rounded), library, cache_format)

    def _kernels(self, config: ModelConfig, options: LoadOptions) -> Kernels:
        from glm3.adapters.mindspore.kernels.base import HeadLayout
        from glm3.adapters.mindspore.kernels.cpu import CpuKernels
        from glm3.adapters.mindspore.kernels.stock import StockKernels

        layout = HeadLayout.of(config)
        only_cpu = options.kernels == "cpu" or options.cache_format != "fp32"
        if options.kernels == "stock":
            if only_cpu:
                raise BackendError(
                    "the stock operators keep keys and values in fp32", found=options.cache_format
                )
            return StockKernels(layout)
        try:
            return CpuKernels(layout, self._library(options.threads))
        except BackendError as error:
            if only_cpu:
                raise
            _warn_once(f"the stock operators compute, at a third of the speed: {error}")
            return StockKernels(layout)

    def _library(self, threads: int | None) -> Path:
        """Return the kernel library, compiled if need be, set to a number of threads.

        Raises:
            BackendError: it is not there and cannot be compiled.
        """
        build = (
            None if self._kernel_cache is None else kernel_library(self._kernel_cache, report=_log.warning)
        )
        if build is None:
            raise BackendError(
                "the CPU kernels are not compiled and no compiler is here",
                hint="install g++ or clang++, or set CXX",
            )
        from glm3.adapters.mindspore.inference.decoder import set_threads

        set_threads(build.path, threads or physical_cores())
        return build.path


def _require_threads(threads: int | None) -> None:
    cores = os.cpu_count() or 1
    most = _THREADS_PER_CORE * cores
    if threads is not None and threads > most:
        raise ConfigError(
            "too many for this machine",
            field="threads",
            expected=f"at most {most}: {_THREADS_PER_CORE} for each of its {cores} cores",
            found=threads,
            hint="leave it out: one for each physical core computes fastest",
        )


@cache
def _warn_once(message: str) -> None:
    _log.warning(message)

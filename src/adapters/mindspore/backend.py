"""The model backend port over MindSpore."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from glm3.adapters.mindspore.kernels.compiler import kernel_library
from glm3.adapters.mindspore.runtime import prepare
from glm3.domain.errors import BackendError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.ports.model import LanguageModel

if TYPE_CHECKING:
    from glm3.adapters.mindspore.kernels.base import Kernels

__all__ = ["KERNEL_SETS", "MindSporeBackend"]

KERNEL_SETS = ("auto", "cpu", "stock")

_log = logging.getLogger(__name__)


class MindSporeBackend:
    """Build ChatGLM3 on MindSpore; importing it is put off until a model is loaded.

    ``kernel_cache`` is the folder of compiled kernels; without one nothing is compiled.
    """

    def __init__(self, kernel_cache: Path | None = None) -> None:
        self._kernel_cache = kernel_cache

    def load(
        self, config: ModelConfig, weights: CheckpointReader | None, options: LoadOptions
    ) -> LanguageModel:
        """Build the network and fill it with ``weights``, or with random numbers where there are none.

        Raises:
            BackendError: there is no such kernel set, or it cannot be built here.
            ParameterMismatchError: the weights do not fit the configuration.
        """
        if options.kernels not in KERNEL_SETS:
            raise BackendError(
                "no such kernel set", expected=", ".join(KERNEL_SETS), found=repr(options.kernels)
            )
        prepare(options.threads)
        from glm3.adapters.mindspore.loading import load_weights
        from glm3.adapters.mindspore.model import MindSporeModel
        from glm3.adapters.mindspore.network import ChatGLMNetwork

        network = ChatGLMNetwork(config, self._kernels(config, options.kernels), options.dtype)
        if weights is None:
            network.initialize(options.seed)
        else:
            load_weights(network, weights)
        return MindSporeModel(network)

    def _kernels(self, config: ModelConfig, wanted: str) -> Kernels:
        from glm3.adapters.mindspore.kernels.base import HeadLayout
        from glm3.adapters.mindspore.kernels.cpu import CpuKernels
        from glm3.adapters.mindspore.kernels.stock import StockKernels

        layout = HeadLayout.of(config)
        if wanted == "stock":
            return StockKernels(layout)
        try:
            return CpuKernels(layout, self._library())
        except BackendError as error:
            if wanted == "cpu":
                raise
            _warn_once(f"the stock operators compute, at a third of the speed: {error}")
            return StockKernels(layout)

    def _library(self) -> Path:
        """Return the kernel library, compiled if need be.

        Raises:
            BackendError: it is not there and cannot be compiled.
        """
        build = None if self._kernel_cache is None else kernel_library(self._kernel_cache, report=_log.info)
        if build is None:
            raise BackendError(
                "the CPU kernels are not compiled and no compiler is here",
                hint="install g++ or clang++, or set CXX",
            )
        return build.path


@cache
def _warn_once(message: str) -> None:
    _log.warning(message)

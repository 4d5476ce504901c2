"""The model backend port over MindSpore."""

from __future__ import annotations

from glm3.adapters.mindspore.runtime import prepare
from glm3.domain.errors import BackendError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.ports.model import LanguageModel

__all__ = ["KERNEL_SETS", "MindSporeBackend"]

KERNEL_SETS = ("auto", "stock")


class MindSporeBackend:
    """Build ChatGLM3 on MindSpore; importing it is put off until a model is loaded."""

    def load(
        self, config: ModelConfig, weights: CheckpointReader | None, options: LoadOptions
    ) -> LanguageModel:
        """Build the network and fill it with ``weights``, or with random numbers where there are none.

        Raises:
            BackendError: there is no such kernel set.
            ParameterMismatchError: the weights do not fit the configuration.
        """
        if options.kernels not in KERNEL_SETS:
            raise BackendError(
                "no such kernel set", expected=", ".join(KERNEL_SETS), found=repr(options.kernels)
            )
        prepare(options.threads)
        from glm3.adapters.mindspore.kernels.base import HeadLayout
        from glm3.adapters.mindspore.kernels.stock import StockKernels
        from glm3.adapters.mindspore.loading import load_weights
        from glm3.adapters.mindspore.model import MindSporeModel
        from glm3.adapters.mindspore.network import ChatGLMNetwork

        network = ChatGLMNetwork(config, StockKernels(HeadLayout.of(config)), options.dtype)
        if weights is None:
            network.initialize(options.seed)
        else:
            load_weights(network, weights)
        return MindSporeModel(network)

"""Port: a runtime that turns a configuration and weights into a model that answers."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.ports.model import LanguageModel
from glm3.domain.tensors import DType

__all__ = ["LoadOptions", "ModelBackend"]


@frozen(kw_only=True)
class LoadOptions:
    """How to hold the weights.

    ``kernels`` names a kernel set or is ``auto``, the fastest one that runs here. ``dtype`` is the
    precision of the parameters in memory. ``seed`` draws the weights of a model without a checkpoint.
    """

    kernels: str = "auto"
    dtype: DType = DType.FLOAT32
    threads: int | None = None
    seed: int = 0


class ModelBackend(Protocol):
    """One runtime, for example MindSpore."""

    def load(
        self, config: ModelConfig, weights: CheckpointReader | None, options: LoadOptions
    ) -> LanguageModel:
        """Build the network and fill it with ``weights``, or with random numbers where there are none.

        Names in ``weights`` may be Hugging Face's or MindSpore's.

        Raises:
            ParameterMismatchError: the weights do not fit the configuration.
            BackendError: the runtime is not usable here, or cannot do what the options ask.
        """
        ...

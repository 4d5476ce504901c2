"""Port: a runtime that turns a configuration and weights into a model that answers."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from glm3.domain.errors import ConfigError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.ports.model import LanguageModel
from glm3.domain.quantization import QuantScheme
from glm3.domain.tensors import DType

__all__ = ["CACHE_FORMATS", "LoadOptions", "ModelBackend"]

CACHE_FORMATS = ("fp32", "fp16", "int8")


@frozen(kw_only=True)
class LoadOptions:
    """How to hold the weights.

    ``kernels`` names a kernel set or is ``auto``, the fastest one that runs here. ``dtype`` is the
    precision of the parameters in memory. ``seed`` draws the weights of a model without a checkpoint.
    ``threads`` is the most that compute, by default one for each physical core. ``quant`` names a
    :class:`~glm3.domain.quantization.QuantScheme` that the weights are rounded by while they are loaded;
    rounded ones stay as they are. ``adaptable`` is for a model that will get a LoRA adapter: rounded
    matrices become what their levels stand for, in ``dtype``, for the operators that take adapters.
    ``kv_cache`` is the format of keys and values: fp32, fp16 or int8; by default fp16 beside rounded weights
    and fp32 beside others.
    """

    kernels: str = "auto"
    dtype: DType = DType.FLOAT32
    threads: int | None = None
    seed: int = 0
    quant: str | None = None
    kv_cache: str | None = None
    adaptable: bool = False

    def __attrs_post_init__(self) -> None:
        """Check what can be known without the machine.

        Raises:
            ConfigError: there is no such quantisation or cache format, or nothing to compute with.
        """
        _ = self.scheme
        if self.threads is not None and self.threads < 1:
            raise ConfigError(
                "too few", field="threads", expected="at least 1, or none for the default", found=self.threads
            )
        if self.kv_cache is not None and self.kv_cache not in CACHE_FORMATS:
            raise ConfigError(
                "no such format",
                field="kv_cache",
                expected=", ".join(CACHE_FORMATS),
                found=repr(self.kv_cache),
            )

    @property
    def scheme(self) -> QuantScheme | None:
        return None if self.quant is None else QuantScheme.parse(self.quant)

    @property
    def cache_format(self) -> str:
        return self.kv_cache or ("fp32" if self.quant is None else "fp16")


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
            InvalidInputError: a weight is to be rounded and is not finite, or too large for its scale.
            ConfigError: the weights are rounded already, by another scheme than the options ask; or the
                options ask for more threads than are of use on this machine.
            CheckpointError: rounded weights are damaged, or of another version of the layout.
        """
        ...

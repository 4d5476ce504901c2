"""An adapter that lies among the weights of its network, as MindFormers and ChatGLM's own code save them.

A prefix tells all of itself. How strong a low-rank adapter is must be known from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import frozen

from glm3.application.adapter_folder import add_adapter
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.ports.model import LanguageModel
from glm3.domain.tensors import Array, TensorSpec, to_float32
from glm3.domain.training.lora import is_adapter_state
from glm3.domain.training.prefix import is_prefix_parameter, prefix_of

__all__ = ["NetworkReader", "apply_prefix_in"]


@frozen(eq=False)
class NetworkReader:
    """A checkpoint without the adapters in it."""

    whole: CheckpointReader

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return {
            name: spec
            for name, spec in self.whole.tensors.items()
            if not (is_prefix_parameter(name) or is_adapter_state(name))
        }

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.whole.metadata

    def read(self, name: str, rows: slice | None = None) -> Array:
        """Return a tensor, or rows of it."""
        return self.whole.read(name, rows)


def apply_prefix_in(reader: CheckpointReader, model: LanguageModel) -> None:
    """Let a model answer with the prefix that lies in its checkpoint, if one does.

    Raises:
        ConfigError: a part of the prefix is missing.
        BackendError: the model's backend cannot.
        ParameterMismatchError: the prefix belongs to another network.
    """
    specs = {name: spec for name, spec in reader.tensors.items() if is_prefix_parameter(name)}
    if specs:
        found = prefix_of({name: spec.shape for name, spec in specs.items()})
        add_adapter(model, found).set_adapter_parameters(
            {name: np.array(to_float32(reader.read(name), spec.dtype)) for name, spec in specs.items()}
        )

"""The weights of a network alone: whole, not rounded, without an adapter, for what is made of them."""

from __future__ import annotations

from pathlib import Path

from glm3.application.model_source import ModelSource
from glm3.domain.errors import ConfigError, MissingFileError, UsageError
from glm3.domain.parameter_check import require_fit
from glm3.domain.parameters import from_mindspore_name, is_model_parameter, parameter_shapes
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.tensors import TensorSpec
from glm3.domain.training.lora import is_adapter_state
from glm3.domain.training.prefix import is_prefix_parameter

__all__ = ["require_plain", "require_weights"]


def require_weights(model: ModelSource, done: str) -> Path:
    """Return where a model's weights are; ``done``, for errors, is what is done with them.

    Raises:
        MissingFileError: it has none.
        UsageError: it is one with an adapter.
    """
    if model.weights is None:
        raise MissingFileError(f"there are no weights to be {done}", field=model.name)
    if model.adapter is not None:
        raise UsageError(
            f"an adapter is not {done} together with its base",
            field=model.name,
            hint="glm3 merge folds it in; then take the result",
        )
    return model.weights


def require_plain(
    reader: CheckpointReader, model: ModelSource, path: Path, done: str
) -> dict[str, TensorSpec]:
    """Return what is stored of each parameter, in the network's order.

    Raises:
        ConfigError: a parameter is stored in whole numbers.
        UsageError: an adapter lies among them.
        ParameterMismatchError: they are not those of the configuration.
    """
    added = [name for name in reader.tensors if is_prefix_parameter(name) or is_adapter_state(name)]
    if added:
        raise UsageError(
            f"holds an adapter besides the network, which is not {done} with it",
            path=path,
            found=", ".join(added[:3]),
            hint="glm3 merge folds a low-rank one in",
        )
    stored = {
        from_mindspore_name(name): spec for name, spec in reader.tensors.items() if is_model_parameter(name)
    }
    require_fit({name: spec.shape for name, spec in stored.items()}, model.config, path)
    for name, spec in stored.items():
        if not spec.dtype.is_floating:
            raise ConfigError(
                "not a weight", path=path, field=name, expected="floating point", found=spec.dtype.value
            )
    return {name: stored[name] for name in parameter_shapes(model.config)}

"""What to round by what, and the checks of it before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from attrs import field, frozen

from glm3.application.calibration import calibration_ids
from glm3.application.model_source import ModelSource
from glm3.domain.errors import ConfigError, MissingFileError, UsageError
from glm3.domain.parameter_check import require_fit
from glm3.domain.parameters import (
    EMBEDDING,
    OUTPUT_LAYER,
    from_mindspore_name,
    is_model_parameter,
    parameter_shapes,
)
from glm3.domain.ports.calibrator import Calibrator
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.quantization import QuantScheme
from glm3.domain.quantization.rounded_checkpoint import refuse_rounded
from glm3.domain.quantization.stored import MatrixForm, packed_specs
from glm3.domain.tensors import TensorSpec
from glm3.domain.training.lora import is_adapter_state
from glm3.domain.training.prefix import is_prefix_parameter

__all__ = [
    "Calibration",
    "QuantizationRequest",
    "calibration_of",
    "require_forms",
    "require_plain",
    "require_weights",
    "target_specs",
]


@frozen
class Calibration:
    """A text whose scores are to change least, and what reads it and runs it through a network."""

    text: Path
    calibrator: Calibrator
    open_tokenizer: Callable[[Path], Tokenizer]


@frozen(kw_only=True)
class QuantizationRequest:
    """What to round by what, into which folder.

    ``embedding`` and ``head`` are the schemes of the first and the last matrix, None to keep it.
    """

    source: ModelSource
    target: Path
    scheme: QuantScheme
    calibration: Calibration | None = None
    embedding: QuantScheme | None = field()
    head: QuantScheme | None = field()
    overwrite: bool = False

    @embedding.default
    def _like_the_others(self) -> QuantScheme:
        return self.scheme

    @head.default
    def _too(self) -> QuantScheme:
        return self.scheme

    def scheme_of(self, name: str) -> QuantScheme | None:
        """Return what a matrix is rounded by."""
        return {EMBEDDING: self.embedding, OUTPUT_LAYER: self.head}.get(name, self.scheme)


def calibration_of(request: QuantizationRequest) -> list[list[int]]:
    """Return the sequences of ids to calibrate with, none if there is no text.

    Raises:
        MissingFileError: the text or the tokenizer is not there.
        UsageError: it is no text, or a short one.
    """
    model, calibration = request.source, request.calibration
    if calibration is None:
        return []
    if model.tokenizer is None:
        raise MissingFileError("there is no tokenizer.model to read the text with", path=model.weights)
    return calibration_ids(calibration.text, calibration.open_tokenizer(model.tokenizer), model.config)


def require_weights(model: ModelSource) -> Path:
    """Return where a model's weights are.

    Raises:
        MissingFileError: it has none.
        UsageError: it is one with an adapter.
    """
    if model.weights is None:
        raise MissingFileError("there are no weights to round", field=model.name)
    if model.adapter is not None:
        raise UsageError(
            "an adapter is not rounded together with its base",
            field=model.name,
            hint="glm3 merge folds it in; then round the result",
        )
    return model.weights


def require_plain(reader: CheckpointReader, model: ModelSource, path: Path) -> dict[str, TensorSpec]:
    """Return what is stored of each parameter, in the network's order.

    Raises:
        ConfigError: the weights are rounded already.
        UsageError: an adapter lies among them.
        ParameterMismatchError: they are not those of the configuration.
    """
    refuse_rounded(reader, "rounded again")
    added = [name for name in reader.tensors if is_prefix_parameter(name) or is_adapter_state(name)]
    if added:
        raise UsageError(
            "holds an adapter besides the network, which is not rounded with it",
            path=path,
            found=", ".join(added[:3]),
            hint="glm3 merge folds a low-rank one in",
        )
    stored = {
        from_mindspore_name(name): spec for name, spec in reader.tensors.items() if is_model_parameter(name)
    }
    require_fit({name: spec.shape for name, spec in stored.items()}, model.config)
    for name, spec in stored.items():
        if not spec.dtype.is_floating:
            raise ConfigError(
                "not a weight", path=path, field=name, expected="floating point", found=spec.dtype.value
            )
    return {name: stored[name] for name in parameter_shapes(model.config)}


def require_forms(request: QuantizationRequest, stored: Mapping[str, TensorSpec]) -> dict[str, MatrixForm]:
    """Return how each matrix is stored.

    Raises:
        ConfigError: a group does not divide the inputs; padding would cost more than it seems.
    """
    forms: dict[str, MatrixForm] = {}
    padded: list[str] = []
    for name, spec in stored.items():
        scheme = request.scheme_of(name) if len(spec.shape) == 2 else None
        if scheme is None:
            continue
        forms[name] = MatrixForm(scheme, (spec.shape[0], spec.shape[1]))
        if scheme.group is not None and spec.shape[1] % scheme.group:
            padded.append(f"{name} has {spec.shape[1]} inputs, in groups of {scheme.group}")
    if padded:
        raise ConfigError(
            "the group does not divide the inputs of every matrix",
            field="group",
            found="; ".join(padded[:3]) + (f"; and {len(padded) - 3} more" if len(padded) > 3 else ""),
            hint="take a smaller group, or one scale a channel (int4-channel, int8-channel)",
        )
    return forms


def target_specs(name: str, spec: TensorSpec, forms: Mapping[str, MatrixForm]) -> Iterator[TensorSpec]:
    """Yield the tensors that stand for a parameter."""
    if name in forms:
        yield from packed_specs(name, forms[name])
    else:
        yield TensorSpec(name, spec.dtype, spec.shape)

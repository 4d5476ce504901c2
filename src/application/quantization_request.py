"""What to round by what, and the checks of it before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from attrs import field, frozen

from glm3.application.calibration import calibration_ids
from glm3.application.model_source import ModelSource
from glm3.domain.errors import ConfigError, MissingFileError
from glm3.domain.parameters import (
    EMBEDDING,
    OUTPUT_LAYER,
)
from glm3.domain.ports.calibrator import Calibrator
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.quantization import QuantScheme
from glm3.domain.quantization.stored import MatrixForm, packed_specs
from glm3.domain.tensors import TensorSpec

__all__ = [
    "Calibration",
    "QuantizationRequest",
    "calibration_of",
    "require_forms",
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

"""Use case: round a model's weights once, and write the model folder that starts without rounding.

Rows stream from any checkpoint to the packed file, a few megabytes at a time. The folder appears whole or not
at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from glm3.application.calibration import CalibratedWeights, calibration_ids
from glm3.application.checkpoint_stores import find_store, store_of_format
from glm3.application.conversion_target import require_target
from glm3.application.convert import Progress
from glm3.application.model_source import ModelSource, ModelSources, ReportProgress
from glm3.application.rounding_error import RoundingErrors
from glm3.application.training_result import hugging_face_files
from glm3.domain.atomic_write import publish, staging_folder, write_durably
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
from glm3.domain.ports.checkpoint_store import CheckpointReader, CheckpointStore, CheckpointWriter
from glm3.domain.ports.quantizer import Quantizer
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.quantization import ROW_BLOCK, PackedWeight, QuantScheme
from glm3.domain.quantization.rounded_checkpoint import refuse_rounded
from glm3.domain.quantization.stored import MatrixForm, PackedHeader, packed_arrays, packed_specs
from glm3.domain.tensors import Array, DType, TensorSpec, row_slabs
from glm3.domain.training.lora import is_adapter_state
from glm3.domain.training.prefix import is_prefix_parameter

__all__ = ["QuantizationRequest", "QuantizationResult", "quantize_model"]

_SLAB_BYTES = 32 << 20


@frozen(kw_only=True)
class QuantizationRequest:
    """What to round by what, into which folder.

    ``embedding`` and ``head`` are the schemes of the first and the last matrix, None to keep it.
    ``calibration`` is a text whose scores are to change least.
    """

    source: str | Path
    target: Path
    scheme: QuantScheme
    calibration: Path | None = None
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


@frozen
class CalibrationParts:
    """What reads a text and runs it through a network."""

    calibrator: Calibrator
    open_tokenizer: Callable[[Path], Tokenizer]


@frozen(kw_only=True)
class QuantizationResult:
    """What was done.

    ``bits_per_weight`` counts what is stored for all matrices, kept ones too. ``errors`` are the root mean
    square difference over that of the weights, by kind of matrix.
    """

    target: Path
    scheme: str
    errors: Mapping[str, float]
    bits_per_weight: float
    source_nbytes: int
    nbytes: int
    seconds: float


def quantize_model(
    request: QuantizationRequest,
    sources: ModelSources,
    stores: Sequence[CheckpointStore],
    quantizer: Quantizer,
    calibrating: CalibrationParts | None = None,
    progress: Progress | None = None,
    downloading: ReportProgress | None = None,
) -> QuantizationResult:
    """Round the weights of a model and publish the folder of the result atomically.

    Raises:
        UsageError: the target exists already, or the model is one with an adapter.
        MissingFileError: the weights are not there.
        ConfigError: they are rounded already, or a group does not divide a matrix.
        ParameterMismatchError: the weights are not those of the configuration.
        InvalidInputError: a weight is not finite, or too large for its scale.
        StorageError: the file system refused.
    """
    begun = time.monotonic()
    model = sources.resolve(request.source, progress=downloading)
    weights = _require_weights(model)
    require_target(request.target, "hf", weights, request.overwrite)
    config = model.config.evolve(quantization_bit=0, checkpoint_name_or_path=None)
    errors = RoundingErrors()
    sequences = _calibration_of(request, model, calibrating)
    with find_store(weights, stores).open(weights) as reader:
        stored = _require_plain(reader, model, weights)
        forms = _require_forms(request, stored)
        specs = [made for name, spec in stored.items() for made in _target_specs(name, spec, forms)]
        with staging_folder(request.target, sum(spec.nbytes for spec in specs)) as work:
            made = work / request.target.name
            metadata = PackedHeader(request.scheme, forms).to_metadata() | {"format": "ms"}
            with store_of_format("safetensors", stores).create(made, specs, metadata) as writer:
                calibrated = None
                if sequences is not None and calibrating is not None:
                    calibrated = CalibratedWeights(
                        model.config, reader, stored, forms, calibrating.calibrator, quantizer, sequences
                    )
                move = _Move(reader, writer, quantizer, errors, calibrated)
                done, total = 0, sum(spec.nbytes for spec in stored.values())
                for name, spec in stored.items():
                    for nbytes in move.tensor(name, spec, forms.get(name)):
                        done += nbytes
                        if progress is not None:
                            progress(done, total, name)
            for name, content in hugging_face_files(config, model.tokenizer).items():
                write_durably(made / name, content)
            publish(made, request.target)
    matrices = {name: spec for name, spec in stored.items() if len(spec.shape) == 2}
    nbytes = sum(spec.nbytes for name, spec in matrices.items() for spec in _target_specs(name, spec, forms))
    return QuantizationResult(
        target=request.target,
        scheme=request.scheme.name,
        errors=errors.relative(),
        bits_per_weight=8 * nbytes / sum(spec.size for spec in matrices.values()),
        source_nbytes=sum(spec.nbytes for spec in stored.values()),
        nbytes=sum(spec.nbytes for spec in specs),
        seconds=time.monotonic() - begun,
    )


@frozen(eq=False)
class _Move:
    """The way of tensors from one checkpoint to another."""

    reader: CheckpointReader
    writer: CheckpointWriter
    quantizer: Quantizer
    errors: RoundingErrors
    calibrated: CalibratedWeights | None

    def tensor(self, name: str, spec: TensorSpec, form: MatrixForm | None) -> Iterator[int]:
        """Write what stands for a tensor; yield the bytes read, slab by slab."""
        if form is None:
            for rows in row_slabs(spec, _SLAB_BYTES):
                array = self.reader.read(spec.name, rows)
                self.writer.write(name, array, rows)
                yield array.nbytes
            return
        weight = None if self.calibrated is None else self.calibrated.take(name)
        if weight is not None:
            self._write(name, self.reader.read(spec.name), spec.dtype, weight, None)
            yield spec.nbytes
            return
        step = max(1, _SLAB_BYTES * spec.shape[0] // spec.nbytes // ROW_BLOCK) * ROW_BLOCK
        for start in range(0, spec.shape[0], step):
            stop = min(start + step, spec.shape[0])
            array = self.reader.read(spec.name, slice(start, stop))
            where = name if stop - start == spec.shape[0] else f"{name} from row {start}"
            weight = self.quantizer.quantize(array, spec.dtype, form.scheme, where)
            blocks = slice(start // ROW_BLOCK, -(-stop // ROW_BLOCK))
            self._write(name, array, spec.dtype, weight, blocks)
            yield array.nbytes

    def _write(
        self, name: str, array: Array, dtype: DType, weight: PackedWeight, blocks: slice | None
    ) -> None:
        for made, part in packed_arrays(name, weight).items():
            self.writer.write(made, part, blocks)
        self.errors.add(name, array, dtype, weight)


def _calibration_of(
    request: QuantizationRequest, model: ModelSource, parts: CalibrationParts | None
) -> list[list[int]] | None:
    if request.calibration is None or parts is None:
        return None
    if model.tokenizer is None:
        raise MissingFileError("there is no tokenizer.model to read the text with", path=model.weights)
    return calibration_ids(request.calibration, parts.open_tokenizer(model.tokenizer), model.config)


def _require_weights(model: ModelSource) -> Path:
    if model.weights is None:
        raise MissingFileError("there are no weights to round", field=model.name)
    if model.adapter is not None:
        raise UsageError(
            "an adapter is not rounded together with its base",
            field=model.name,
            hint="glm3 merge folds it in; then round the result",
        )
    return model.weights


def _require_plain(reader: CheckpointReader, model: ModelSource, path: Path) -> dict[str, TensorSpec]:
    """Return what is stored of each parameter, in the network's order."""
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


def _require_forms(request: QuantizationRequest, stored: Mapping[str, TensorSpec]) -> dict[str, MatrixForm]:
    """Return how each matrix is stored, and refuse groups that would be padded."""
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


def _target_specs(name: str, spec: TensorSpec, forms: Mapping[str, MatrixForm]) -> Iterator[TensorSpec]:
    if name in forms:
        yield from packed_specs(name, forms[name])
    else:
        yield TensorSpec(name, spec.dtype, spec.shape)

"""Use case: round a model's weights once, and write the model folder that starts without rounding.

Rows stream from any checkpoint to the packed file, a few megabytes at a time. The folder appears whole or not
at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from glm3.application.calibration import CalibratedWeights
from glm3.application.checkpoint_stores import find_store, store_of_format
from glm3.application.conversion_target import require_target
from glm3.application.convert import Progress
from glm3.application.plain_weights import require_plain, require_weights
from glm3.application.quantization_request import (
    QuantizationRequest,
    calibration_of,
    require_forms,
    target_specs,
)
from glm3.application.rounding_error import RoundingErrors
from glm3.application.training_result import hugging_face_files
from glm3.domain.atomic_write import publish, staging_folder, write_durably
from glm3.domain.ports.checkpoint_store import CheckpointReader, CheckpointStore, CheckpointWriter
from glm3.domain.ports.quantizer import Quantizer
from glm3.domain.quantization import ROW_BLOCK, PackedWeight
from glm3.domain.quantization.rounded_checkpoint import refuse_rounded
from glm3.domain.quantization.stored import MatrixForm, PackedHeader, packed_arrays
from glm3.domain.tensors import Array, DType, TensorSpec, row_slabs

__all__ = ["QuantizationResult", "quantize_model"]


_SLAB_BYTES = 32 << 20


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
    stores: Sequence[CheckpointStore],
    quantizer: Quantizer,
    progress: Progress | None = None,
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
    model = request.source
    weights = require_weights(model, "rounded")
    require_target(request.target, "hf", weights, request.overwrite)
    config = model.config.evolve(quantization_bit=0, checkpoint_name_or_path=None)
    errors = RoundingErrors()
    sequences = calibration_of(request)
    with find_store(weights, stores).open(weights) as reader:
        refuse_rounded(reader, "rounded again")
        stored = require_plain(reader, model, weights, "rounded")
        forms = require_forms(request, stored)
        specs = [made for name, spec in stored.items() for made in target_specs(name, spec, forms)]
        with staging_folder(request.target, sum(spec.nbytes for spec in specs)) as work:
            made = work / request.target.name
            metadata = PackedHeader(request.scheme, forms).to_metadata() | {"format": "ms"}
            with store_of_format("safetensors", stores).create(made, specs, metadata) as writer:
                calibrated = None
                if request.calibration is not None:
                    calibrator = request.calibration.calibrator
                    calibrated = CalibratedWeights(
                        config, reader, stored, forms, calibrator, quantizer, sequences
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
    nbytes = sum(spec.nbytes for name, spec in matrices.items() for spec in target_specs(name, spec, forms))
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

"""Use case: write a model as one file for another program, network, weights and vocabulary together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from glm3.application.checkpoint_stores import find_store
from glm3.application.convert import Progress
from glm3.application.model_source import ModelSource, ModelSources
from glm3.application.plain_weights import require_plain, require_weights
from glm3.domain.atomic_write import staged_file
from glm3.domain.errors import ConfigError, MissingFileError, UsageError
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.model_exporter import ExportableModel, ModelExporter
from glm3.domain.ports.tokenizer import SupportsPieces, Tokenizer
from glm3.domain.quantization.rounded_checkpoint import refuse_rounded
from glm3.domain.tensors import TensorSpec

__all__ = ["ExportRequest", "ExportResult", "export_model"]


@frozen(kw_only=True)
class ExportRequest:
    """What to write where; ``encoding`` is one of the exporter's, None its first."""

    source: Path
    target: Path
    encoding: str | None = None
    overwrite: bool = False


@frozen(kw_only=True)
class ExportResult:
    """What was done; ``encodings`` counts the tensors of each encoding that occurred."""

    target: Path
    encoding: str
    encodings: dict[str, int]
    nbytes: int
    tensors: int
    seconds: float


def export_model(
    request: ExportRequest,
    sources: ModelSources,
    stores: Sequence[CheckpointStore],
    open_tokenizer: Callable[[Path], Tokenizer],
    exporter: ModelExporter,
    progress: Progress | None = None,
) -> ExportResult:
    """Write the model and publish the file atomically, one tensor in memory at a time.

    Raises:
        UsageError: the encoding is unknown, the target does not suit the format or exists already.
        MissingFileError: the weights or the tokenizer are not there.
        ConfigError: the format cannot say what the network is, or the weights are rounded already.
        ParameterMismatchError: the weights are not those of the configuration.
        InvalidInputError: a weight is not finite, or does not fit.
        StorageError: the file system refused.
    """
    begun = time.monotonic()
    encoding = _require_suitable(request, exporter)
    model = sources.resolve(request.source)
    weights, vocabulary = _require_parts(model, open_tokenizer)
    with find_store(weights, stores).open(weights) as reader:
        refuse_rounded(reader, "written for other programs")
        stored = require_plain(reader, model, weights, "written for other programs")
        specs = [TensorSpec(name, spec.dtype, spec.shape) for name, spec in stored.items()]
        exportable = ExportableModel(
            name=model.name,
            config=model.config,
            pieces=vocabulary.pieces(),
            tensors=specs,
            read=lambda spec, rows: reader.read(stored[spec.name].name, rows),
        )
        stored_as = [exporter.stored(spec, encoding) for spec in specs]
        done, total = 0, sum(spec.nbytes for spec in specs)

        def report(name: str, nbytes: int) -> None:
            nonlocal done
            done += nbytes
            if progress is not None:
                progress(done, total, name)

        with staged_file(request.target, sum(nbytes for _, nbytes in stored_as)) as file:
            exporter.write(file, exportable, encoding, report)
            nbytes = file.stat().st_size
    kinds = [kind for kind, _ in stored_as]
    return ExportResult(
        target=request.target,
        encoding=encoding,
        encodings={kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        nbytes=nbytes,
        tensors=len(specs),
        seconds=time.monotonic() - begun,
    )


def _require_suitable(request: ExportRequest, exporter: ModelExporter) -> str:
    encoding = exporter.encodings[0] if request.encoding is None else request.encoding
    if encoding not in exporter.encodings:
        raise UsageError(
            "no such encoding", field="encoding", expected=", ".join(exporter.encodings), found=encoding
        )
    if request.target.suffix != exporter.suffix:
        raise UsageError("needs a file name", path=request.target, expected=f"*{exporter.suffix}")
    if request.target.exists() and not request.overwrite:
        raise UsageError(
            "exists already", path=request.target, hint="choose another name or ask to overwrite it"
        )
    return encoding


def _require_parts(
    model: ModelSource, open_tokenizer: Callable[[Path], Tokenizer]
) -> tuple[Path, SupportsPieces]:
    weights = require_weights(model, "written for other programs")
    if model.tokenizer is None:
        raise MissingFileError("there is no tokenizer.model", path=weights, hint="put it beside the weights")
    tokenizer = open_tokenizer(model.tokenizer)
    if not isinstance(tokenizer, SupportsPieces):
        raise UsageError("this tokenizer cannot list its vocabulary", path=model.tokenizer)
    if tokenizer.special_tokens.vocab_size > model.config.padded_vocab_size:
        raise ConfigError(
            "the tokenizer has more ids than the network",
            path=model.tokenizer,
            expected=f"at most {model.config.padded_vocab_size}",
            found=tokenizer.special_tokens.vocab_size,
        )
    return weights, tokenizer

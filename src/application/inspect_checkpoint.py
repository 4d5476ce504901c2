"""Tell what a checkpoint holds without reading its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from glm3.application.checkpoint_stores import config_beside, find_store
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameter_check import (
    ImpliedConfig,
    ParameterDifferences,
    compare_parameters,
    implied_config,
)
from glm3.domain.parameters import IGNORED_SUFFIXES, from_mindspore_name
from glm3.domain.ports.checkpoint_store import CheckpointReader, CheckpointStore, ListsFiles
from glm3.domain.quantization.rounded_checkpoint import rounded_checkpoint
from glm3.domain.quantization.stored import PACKED_KEY
from glm3.domain.tensors import TensorSpec

__all__ = ["CheckpointReport", "FieldDifference", "FileReport", "inspect_checkpoint"]


@frozen
class FileReport:
    """One file: its bytes on disk, and its tensors' count and bytes."""

    path: Path
    file_bytes: int
    tensors: int
    tensor_bytes: int


@frozen
class FieldDifference:
    """A field of ``config.json`` that the shapes contradict."""

    field: str
    configured: object
    implied: object


@frozen(kw_only=True)
class CheckpointReport:
    """What a checkpoint holds. ``config`` is the ``config.json`` beside it, if any."""

    path: Path
    format: str
    tensors: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    files: tuple[FileReport, ...]
    implied: ImpliedConfig | None
    config: ModelConfig | None
    field_differences: tuple[FieldDifference, ...]
    parameter_differences: ParameterDifferences | None

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.nbytes for spec in self.tensors)

    @property
    def parameter_count(self) -> int:
        """Numbers in all tensors but those every network recomputes."""
        return sum(spec.size for spec in self.tensors if not spec.name.endswith(IGNORED_SUFFIXES))

    @property
    def dtypes(self) -> Mapping[str, int]:
        """Bytes by dtype."""
        totals: dict[str, int] = {}
        for spec in self.tensors:
            totals[spec.dtype.value] = totals.get(spec.dtype.value, 0) + spec.nbytes
        return totals


def inspect_checkpoint(path: Path, stores: Sequence[CheckpointStore]) -> CheckpointReport:
    """Read the headers of a checkpoint and compare them with the ``config.json`` beside it.

    ``parameter_differences`` is against that file, or None without one.

    Raises:
        MissingFileError: the path or a shard does not exist.
        CheckpointError: no store reads it, or a header is wrong.
        ConfigError: the ``config.json`` is not valid.
    """
    store = find_store(path, stores)
    with store.open(path) as reader:
        tensors, metadata, files = tuple(reader.tensors.values()), dict(reader.metadata), _files(reader)
        config = config_beside(path)
        rounded = rounded_checkpoint(reader, 0 if config is None else config.quantization_bit)
    network = tensors if rounded is None else tuple(rounded.tensors.values())
    if rounded is not None and PACKED_KEY in metadata:
        metadata[PACKED_KEY] = rounded.scheme.name  # what it says of each matrix is pages long
    by_name = {from_mindspore_name(spec.name): spec for spec in network}
    implied = implied_config(by_name, config)
    fields: tuple[FieldDifference, ...] = ()
    parameters = None
    if config is not None:
        parameters = compare_parameters({name: spec.shape for name, spec in by_name.items()}, config)
        fields = () if implied is None else _field_differences(config, implied)
        if rounded is not None:  # what the parameters were before is no longer to be seen
            fields = tuple(difference for difference in fields if difference.field != "param_init_type")
    return CheckpointReport(
        path=path,
        format=store.format,
        tensors=tensors,
        metadata=metadata,
        files=files,
        implied=implied,
        config=config,
        field_differences=fields,
        parameter_differences=parameters,
    )


def _files(reader: CheckpointReader) -> tuple[FileReport, ...]:
    if not isinstance(reader, ListsFiles):
        return ()
    return tuple(
        FileReport(file, file.stat().st_size, len(names), sum(reader.tensors[name].nbytes for name in names))
        for file, names in reader.files.items()
    )


def _field_differences(config: ModelConfig, implied: ImpliedConfig) -> tuple[FieldDifference, ...]:
    differences = []
    for name in implied.derived:
        configured, found = getattr(config, name), getattr(implied.config, name)
        if name == "multi_query_group_num":
            configured, found = config.num_kv_heads, implied.config.num_kv_heads
        if configured != found:
            differences.append(FieldDifference(name, configured, found))
    return tuple(differences)

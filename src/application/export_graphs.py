"""Use case: write a model's prefill and decode as graphs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from glm3.application.checkpoint_stores import find_store
from glm3.application.model_source import ModelSources
from glm3.domain.atomic_write import staged_folder
from glm3.domain.errors import MissingFileError, UsageError
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.graph_exporter import ExportedGraph, GraphExporter, GraphOptions
from glm3.domain.positional_io import storage_errors
from glm3.domain.quantization.rounded_checkpoint import refuse_rounded

__all__ = ["ExportedGraphs", "export_graphs"]


@frozen
class ExportedGraphs:
    """What was written, and how long it took."""

    graphs: tuple[ExportedGraph, ...]
    seconds: float


def export_graphs(
    source: str | Path,
    target: Path,
    options: GraphOptions,
    sources: ModelSources,
    stores: Sequence[CheckpointStore],
    exporter: GraphExporter,
) -> ExportedGraphs:
    """Write the graphs into a new folder, which appears whole or not at all.

    Raises:
        UsageError: the target exists already.
        MissingFileError: the model has no weights.
        ConfigError: the weights are rounded.
        StorageError: the file system refused.
        Glm3Error: see :meth:`GraphExporter.write`.
    """
    begun = time.monotonic()
    if target.exists():
        raise UsageError("exists already", path=target, hint="choose another folder, or remove it")
    model = sources.resolve(source)
    if model.weights is None:
        raise MissingFileError("the model has no weights", path=target, field=model.name)
    with find_store(model.weights, stores).open(model.weights) as reader:
        refuse_rounded(reader, "written as graphs")
        with staged_folder(target) as folder, storage_errors(target):
            written = exporter.write(folder, model.config, reader, options)
    graphs = tuple(
        ExportedGraph(path=target / graph.path.name, inputs=graph.inputs, operators=graph.operators)
        for graph in written
    )
    return ExportedGraphs(graphs, time.monotonic() - begun)

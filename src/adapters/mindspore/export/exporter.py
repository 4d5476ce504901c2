"""The graph exporter port: MindIR files with the weights inside or, from 1 GB on, in a folder beside."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from attrs import evolve

from glm3.adapters.mindspore.runtime import graph_mode, prepare
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.ports.graph_exporter import ExportedGraph, GraphOptions
from glm3.domain.positional_io import storage_errors

__all__ = ["MindirExporter"]

_log = logging.getLogger(__name__)


class MindirExporter:
    """Build the network over fused or plain operators and let MindSpore write its graphs."""

    def write(
        self, folder: Path, config: ModelConfig, weights: CheckpointReader, options: GraphOptions
    ) -> tuple[ExportedGraph, ...]:
        prepare()
        from glm3.adapters.mindspore.export.graphs import DecodeGraph, PrefillGraph
        from glm3.adapters.mindspore.kernels.ascend.quantized import quantize_network
        from glm3.adapters.mindspore.kernels.ascend.selection import ascend_kernels
        from glm3.adapters.mindspore.loading import load_weights
        from glm3.adapters.mindspore.network import ChatGLMNetwork

        config = evolve(
            config,
            block_size=options.block_size or config.block_size,
            num_blocks=options.num_blocks or config.num_blocks,
        )
        kernels = ascend_kernels(config, options.dtype, fused=options.kernels == "ascend", warn=_log.warning)
        network = ChatGLMNetwork(config, kernels, options.dtype)
        load_weights(network, weights)
        if options.scheme is not None:
            quantize_network(network, options.scheme)
        batch, seq = options.batch_size, options.seq_length
        tokens = None if batch is None or seq is None else batch * seq
        blocks = None if seq is None else -(-seq // config.block_size)
        prefill = PrefillGraph(network, config.num_blocks)
        decode = DecodeGraph(network, config.num_blocks, prefill.pools)
        return (
            _write(
                folder / "prefill.mindir",
                prefill,
                (("input_ids", (batch, seq)), ("lengths", (batch,)), ("slot_mapping", (tokens,))),
            ),
            _write(
                folder / "decode.mindir",
                decode,
                (
                    ("input_ids", (batch,)),
                    ("positions", (batch,)),
                    ("slot_mapping", (batch,)),
                    ("block_tables", (batch, blocks)),
                ),
            ),
        )


def _write(path: Path, cell: Any, inputs: tuple[tuple[str, tuple[int | None, ...]], ...]) -> ExportedGraph:
    import mindspore as ms

    from glm3.adapters.mindspore.export.mindir import placeholder, read_graph

    counts: dict[str, int] = {}
    with graph_mode():
        ms.export(
            cell,
            *(placeholder(shape) for _, shape in inputs),
            file_name=str(path),
            file_format="MINDIR",
            custom_func=lambda model: counts.update(read_graph(model).counts()),
        )
    for written in (path, *path.parent.glob(path.stem + "_variables/*")):
        written.chmod(0o644)  # MindSpore leaves files that their owner cannot replace
        with storage_errors(written), written.open("rb") as file:
            os.fsync(file.fileno())
    return ExportedGraph(path=path, inputs=inputs, operators=counts)

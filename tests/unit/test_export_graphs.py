"""A model written as graphs: what the folder is like when its writer fails."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from glm3.application.export_graphs import export_graphs
from glm3.domain.errors import StorageError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.ports.graph_exporter import ExportedGraph, GraphOptions
from glm3.entrypoints.container import build_container


class FillsTheDisk:
    """An exporter whose runtime writes its files itself, until there is no room."""

    def write(
        self, folder: Path, config: ModelConfig, weights: CheckpointReader, options: GraphOptions
    ) -> list[ExportedGraph]:
        (folder / "prefill.mindir").write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_is_a_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    parts = build_container(offline=True)
    with pytest.raises(StorageError, match="cannot be written: No space left on device") as caught:
        export_graphs(
            "tiny",
            tmp_path / "graphs",
            GraphOptions(),
            parts.sources(),
            parts.checkpoint_stores(),
            FillsTheDisk(),
        )
    assert caught.value.path == tmp_path / "graphs"
    assert str(caught.value.found).endswith("bytes free")
    assert list(tmp_path.iterdir()) == []

"""Models as files of other programs, from Python."""

from __future__ import annotations

from pathlib import Path

from glm3.application.convert import Progress
from glm3.application.export_model import ExportRequest, ExportResult, export_model
from glm3.entrypoints.container import build_container

__all__ = ["export_gguf"]


def export_gguf(
    source: str | Path,
    target: str | Path,
    *,
    encoding: str = "f16",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Write a model as llama.cpp's GGUF file; ``encoding`` is ``f16``, ``q8_0`` or ``q4_0``.

    Needs the package gguf (``pip install 'glm3[gguf]'``).

    Raises:
        Glm3Error: see :func:`glm3.application.export_model.export_model`.
    """
    request = ExportRequest(source=Path(source), target=Path(target), encoding=encoding, overwrite=overwrite)
    parts = build_container()
    return export_model(
        request,
        parts.sources(),
        parts.checkpoint_stores(),
        parts.tokenizers(),
        parts.gguf_exporter(),
        progress,
    )

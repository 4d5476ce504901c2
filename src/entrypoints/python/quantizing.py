"""Rounded model folders, from Python."""

from __future__ import annotations

from pathlib import Path

from glm3.application.convert import Progress
from glm3.application.quantize_model import QuantizationResult, quantize_model
from glm3.entrypoints.container import build_container
from glm3.entrypoints.quantization import quantization_request

__all__ = ["quantize"]


def quantize(
    source: str | Path,
    target: str | Path,
    *,
    quant: str = "int4",
    group_size: int | None = None,
    embedding: str | None = None,
    head: str | None = None,
    calibration: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> QuantizationResult:
    """Round a model's weights and write the folder of a model that starts without rounding.

    Args:
        source: a model folder, a file of weights, a YAML file, or a name.
        target: the folder to write.
        quant: ``int8``, ``int4``, ``int4-g64-asym`` and the like.
        group_size: how many inputs share a scale, if not as many as ``quant`` says.
        embedding: another scheme for the embedding, or ``keep``.
        head: another scheme for the output head, or ``keep``.
        calibration: a text file; errors of rounding are then made up for as far as its words tell how.
        overwrite: replace a folder of weights.
        progress: told the bytes read so far, the bytes in all, and the tensor's name.

    Raises:
        Glm3Error: see :func:`glm3.application.quantize_model.quantize_model`.
    """
    parts = build_container()
    request = quantization_request(
        parts,
        source,
        target,
        quant=quant,
        group_size=group_size,
        embedding=embedding,
        head=head,
        calibration=calibration,
        overwrite=overwrite,
    )
    return quantize_model(request, parts.checkpoint_stores(), parts.quantizer(), progress)

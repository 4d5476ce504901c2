"""What a user asks of a rounding, as the request of the use case."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from glm3.application.model_source import ReportProgress
from glm3.application.quantization_request import Calibration, QuantizationRequest
from glm3.domain.quantization import QuantScheme
from glm3.entrypoints.container import Container

__all__ = ["KEEP", "quantization_request"]

KEEP = "keep"


def quantization_request(
    parts: Container,
    source: str | Path,
    target: str | Path,
    *,
    quant: str,
    group_size: int | None = None,
    embedding: str | None = None,
    head: str | None = None,
    calibration: str | Path | None = None,
    overwrite: bool = False,
    downloading: ReportProgress | None = None,
) -> QuantizationRequest:
    """Read the names of schemes and find the model; ``keep`` leaves the embedding or the head as it is.

    Raises:
        ConfigError: there is no such scheme, or no such group.
        Glm3Error: the model is not found; see :meth:`glm3.application.model_source.ModelSources.resolve`.
    """
    scheme = QuantScheme.parse(quant)
    if group_size is not None:
        scheme = evolve(scheme, group=group_size)

    def other(name: str | None) -> QuantScheme | None:
        if name is None:
            return scheme
        return None if name == KEEP else QuantScheme.parse(name)

    def read_by(text: Path) -> Calibration:
        return Calibration(text, parts.calibrator(), parts.tokenizers())

    table, output_head = other(embedding), other(head)  # a wrong name is told before anything is downloaded
    return QuantizationRequest(
        source=parts.sources().resolve(source, progress=downloading),
        target=Path(target),
        scheme=scheme,
        embedding=table,
        head=output_head,
        calibration=None if calibration is None else read_by(Path(calibration)),
        overwrite=overwrite,
    )

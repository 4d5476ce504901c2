"""What a user asks of a rounding, as the request of the use case."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from glm3.application.quantize_model import CalibrationParts, QuantizationRequest
from glm3.domain.quantization import QuantScheme
from glm3.entrypoints.container import Container

__all__ = ["KEEP", "calibration_parts", "quantization_request"]

KEEP = "keep"


def quantization_request(
    source: str | Path,
    target: str | Path,
    *,
    quant: str,
    group_size: int | None = None,
    embedding: str | None = None,
    head: str | None = None,
    calibration: str | Path | None = None,
    overwrite: bool = False,
) -> QuantizationRequest:
    """Read the names of schemes; ``keep`` leaves the embedding or the head as it is.

    Raises:
        ConfigError: there is no such scheme, or no such group.
    """
    scheme = QuantScheme.parse(quant)
    if group_size is not None:
        scheme = evolve(scheme, group=group_size)

    def other(name: str | None) -> QuantScheme | None:
        if name is None:
            return scheme
        return None if name == KEEP else QuantScheme.parse(name)

    return QuantizationRequest(
        source=source,
        target=Path(target),
        scheme=scheme,
        embedding=other(embedding),
        head=other(head),
        calibration=None if calibration is None else Path(calibration),
        overwrite=overwrite,
    )


def calibration_parts(parts: Container) -> CalibrationParts:
    """Return what a calibration text is read and run with."""
    return CalibrationParts(parts.calibrator(), parts.tokenizers())

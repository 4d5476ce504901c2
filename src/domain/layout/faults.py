"""Several faults of one cut, reported together, each with the parameter that it is about."""

from __future__ import annotations

from collections.abc import Sequence

from glm3.domain.errors import Glm3Error, InvalidInputError, MultipleFaultsError

__all__ = ["faults_of", "raise_faults"]


def raise_faults(summary: str, faults: Sequence[Glm3Error]) -> None:
    """Raise one fault as it is, several as a MultipleFaultsError, none not at all."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise MultipleFaultsError(summary, faults)


def faults_of(error: InvalidInputError, name: str) -> list[Glm3Error]:
    """Return an error's faults, one by one, as those of the parameter ``name``."""
    faults: list[Glm3Error] = list(error.faults) if isinstance(error, MultipleFaultsError) else [error]
    for fault in faults:
        fault.field = f"{name}, {fault.field}" if fault.field else name
    return faults

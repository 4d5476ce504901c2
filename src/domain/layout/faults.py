"""Several faults of one cut, reported together, each with the parameter that it is about."""

from __future__ import annotations

from glm3.domain.errors import Glm3Error, InvalidInputError, MultipleFaultsError

__all__ = ["faults_of"]


def faults_of(error: InvalidInputError, name: str) -> list[Glm3Error]:
    """Return an error's faults, one by one, as those of the parameter ``name``."""
    faults: list[Glm3Error] = list(error.faults) if isinstance(error, MultipleFaultsError) else [error]
    for fault in faults:
        fault.field = f"{name}, {fault.field}" if fault.field else name
    return faults

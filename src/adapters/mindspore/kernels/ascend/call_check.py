"""Collect what is wrong with one call of a fused operator."""

from __future__ import annotations

from collections.abc import Sequence

from glm3.domain.errors import Glm3Error, InvalidInputError, raise_faults

__all__ = ["CallCheck", "Shape"]

Shape = tuple[int, ...]


class CallCheck:
    """Collect what is wrong with one call."""

    def __init__(self, operator: str) -> None:
        self.operator = operator
        self.faults: list[Glm3Error] = []

    def require(self, met: bool, field: str, expected: object, found: object, hint: str) -> None:
        if not met:
            self.faults.append(
                InvalidInputError(
                    "not what the operator takes",
                    field=f"{self.operator}.{field}",
                    expected=expected,
                    found=found,
                    hint=hint,
                )
            )

    def dtype(self, field: str, found: str, allowed: Sequence[str]) -> None:
        hint = "set model_config.compute_dtype, or use the stock kernels"
        self.require(found in allowed, f"{field} dtype", " or ".join(allowed), found, hint)

    def same(self, field: str, expected: object, found: object, hint: str) -> None:
        self.require(expected == found, field, expected, found, hint)

    def rank(self, field: str, shape: Shape, rank: int) -> bool:
        """Return whether a shape has as many axes as it must have; other rules make no sense otherwise."""
        self.require(len(shape) == rank, f"{field} shape", f"{rank} axes", shape, "reshape the input")
        return len(shape) == rank

    def ranks(self, **expected: tuple[Shape, int]) -> bool:
        """Return whether all shapes have as many axes as they must have."""
        met = [self.rank(name, shape, rank) for name, (shape, rank) in expected.items()]
        return all(met)

    def finish(self) -> None:
        raise_faults(f"{self.operator} cannot be called so", self.faults)

"""What the self-test of fused operators finds on a card, and how it is judged."""

from __future__ import annotations

from attrs import frozen

from glm3.domain.finding import Finding, Status

__all__ = ["OperatorOutcome", "judge_operator"]


@frozen(kw_only=True)
class OperatorOutcome:
    """One fused operator beside its reference on the same inputs.

    ``error`` is the largest difference relative to the reference's largest number, ``allowed`` what the
    precision explains; times are medians in milliseconds behind a warm-up. ``failure`` is what the operator
    said instead of computing.
    """

    operator: str
    case: str
    dtype: str
    error: float = float("nan")
    allowed: float = 0.0
    fused_ms: float = float("nan")
    stock_ms: float = float("nan")
    failure: str | None = None

    @property
    def passed(self) -> bool:
        return self.failure is None and self.error <= self.allowed  # not a number never passes


def judge_operator(outcome: OperatorOutcome) -> Finding:
    """Say whether an operator computes what it should, and what to do where it does not."""
    name = f"{outcome.operator} {outcome.case}"
    if outcome.failure is not None:
        return Finding(
            name,
            Status.FAIL,
            f"{outcome.dtype}: {outcome.failure}",
            "send this table and glm3 doctor --collect-logs; the stock operator can replace it meanwhile",
        )
    measured = (
        f"{outcome.dtype}: error {outcome.error:.1e} of {outcome.allowed:.0e}, "
        f"fused {outcome.fused_ms:.2f} ms, stock {outcome.stock_ms:.2f} ms"
    )
    if outcome.passed:
        return Finding(name, Status.OK, measured)
    return Finding(
        name, Status.FAIL, measured, "the numbers differ: do not train or answer with it; send this table"
    )

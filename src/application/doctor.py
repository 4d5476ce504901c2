"""Use case: say whether this machine can do the work, and what to do where it cannot."""

from __future__ import annotations

from attrs import frozen

from glm3.domain.ascend_self_test import judge_operator
from glm3.domain.doctor import judge_host, judge_runtime
from glm3.domain.errors import BackendError
from glm3.domain.finding import Finding, Status
from glm3.domain.host import HostFacts
from glm3.domain.ports.host import Host
from glm3.domain.ports.operator_test import OperatorTest

__all__ = ["DoctorReport", "examine", "judge_operators"]


@frozen
class DoctorReport:
    """Every finding, in the order in which a person reads them."""

    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The gravest status of all findings."""
        present = {finding.status for finding in self.findings}
        return next((status for status in (Status.FAIL, Status.WARN) if status in present), Status.OK)


def examine(host: Host, *, start_runtime: bool = True) -> DoctorReport:
    """Judge ``host``; without ``start_runtime`` MindSpore is not started, which takes some seconds."""
    facts = host.facts()
    findings = judge_host(facts)
    if start_runtime:
        findings += judge_runtime(host.try_runtime(_target(facts)), facts)
    return DoctorReport(tuple(findings))


def judge_operators(host: Host, operators: OperatorTest) -> DoctorReport:
    """Judge every fused operator on this machine's Ascend card.

    Raises:
        BackendError: there is no card, or the runtime cannot use it.
    """
    ascend = host.facts().ascend
    if not ascend.present:
        raise BackendError(
            "no Ascend card is present: nothing was tested",
            hint="run this on the machine with the card, once npu-smi info lists it",
        )
    return DoctorReport(tuple(judge_operator(outcome) for outcome in operators.run()))


def _target(facts: HostFacts) -> str:
    return "Ascend" if facts.ascend.present else "CPU"

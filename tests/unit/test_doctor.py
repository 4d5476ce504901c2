"""Judging machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from attrs import evolve

from glm3.adapters.memory.host import FakeHost, healthy_facts
from glm3.application.doctor import DoctorReport, examine
from glm3.domain.finding import Finding, Status
from glm3.domain.host import AscendFacts, HostFacts

ASCEND = AscendFacts(
    device_files=("/dev/davinci0", "/dev/davinci1"),
    npu_smi="/usr/local/bin/npu-smi",
    driver_version="24.1",
    toolkit="/opt/cann",
    toolkit_version="8.0",
    tbe_modules=frozenset({"te", "tbe"}),
)


def facts(**changes: Any) -> HostFacts:
    return evolve(healthy_facts(), **changes)


def packages(**versions: str | None) -> Mapping[str, str | None]:
    return {**healthy_facts().packages, **versions}


def finding(report: DoctorReport, name: str) -> Finding:
    (found,) = [f for f in report.findings if f.name == name]
    return found


def test_a_healthy_machine_is_ok_throughout() -> None:
    report = examine(FakeHost())
    assert [f for f in report.findings if f.status is not Status.OK] == []
    assert report.status is Status.OK


@pytest.mark.parametrize(
    ("changes", "name", "status", "advice"),
    [
        ({"packages": packages(numpy="2.2.1")}, "numpy", Status.FAIL, "numpy<2"),
        ({"packages": packages(numpy=None)}, "numpy", Status.FAIL, "pip install"),
        ({"packages": packages(mindspore=None)}, "mindspore", Status.FAIL, "mindspore==2.10.0"),
        ({"packages": packages(mindspore="2.4.1")}, "mindspore", Status.WARN, "mindspore==2.10.0"),
        ({"packages": packages(safetensors="0.8.0")}, "safetensors", Status.WARN, "safetensors<0.8"),
        ({"python": (3, 12, 1)}, "python", Status.FAIL, "Python 3.11"),
        ({"memory_available": 20 * 10**9}, "memory", Status.WARN, "12.5 GB"),
        ({"memory_available": 5 * 10**8}, "memory", Status.WARN, "embedded model"),
        ({"download_free": 10**9}, "disk", Status.WARN, "CHECKPOINT_DOWNLOAD_FOLDER"),
        ({"cache_free": 10**6}, "kernel cache", Status.WARN, "GLM3_CACHE"),
        ({"compiler": None}, "compiler", Status.WARN, "g++"),
        (
            {"environment": {"MS_COMPILER_CACHE_ENABLE": "1"}},
            "MS_COMPILER_CACHE_ENABLE",
            Status.WARN,
            "unset MS_COMPILER_CACHE_ENABLE",
        ),
    ],
)
def test_a_defect_is_named_with_its_remedy(
    changes: dict[str, Any], name: str, status: Status, advice: str
) -> None:
    report = examine(FakeHost(facts(**changes)))
    assert finding(report, name).status is status
    assert advice in finding(report, name).advice
    assert report.status is status


@pytest.mark.parametrize("version", ["1.26.4", "0.7.0", "2.10.0"])
def test_versions_are_compared_as_numbers(version: str) -> None:
    """0.10 is newer than 0.8, and 1.26 is not 2."""
    report = examine(FakeHost(facts(packages=packages(safetensors="0.10.0", numpy=version))))
    assert finding(report, "safetensors").status is Status.WARN
    assert (finding(report, "numpy").status is Status.FAIL) == version.startswith("2")


def test_offline_is_reported() -> None:
    report = examine(FakeHost(facts(environment={"GLM3_OFFLINE": "1"})))
    assert "never touched" in finding(report, "offline").found


def test_a_failed_self_test_fails() -> None:
    report = examine(FakeHost(passed=False, error="ImportError: libgomp.so.1"))
    assert report.status is Status.FAIL
    assert "libgomp.so.1" in finding(report, "run_check").found
    assert "run_check()" in finding(report, "run_check").advice


def test_lost_bfloat16_is_blamed_on_numpy() -> None:
    report = examine(FakeHost(bfloat16=False))
    assert finding(report, "bfloat16").status is Status.FAIL
    assert "numpy<2" in finding(report, "bfloat16").advice


def test_mindspore_is_not_started_when_not_wanted() -> None:
    names = [f.name for f in examine(FakeHost(passed=False), start_runtime=False).findings]
    assert "run_check" not in names


class TestAscend:
    def test_a_complete_installation_is_ok(self) -> None:
        report = examine(FakeHost(facts(ascend=ASCEND)))
        assert report.status is Status.OK
        assert finding(report, "run_check").found == "passed on Ascend"

    def test_a_missing_toolkit_explains_why_only_the_cpu_works(self) -> None:
        """Question 2 of the model card, first half."""
        report = examine(FakeHost(facts(ascend=evolve(ASCEND, toolkit=None))))
        assert finding(report, "Ascend").status is Status.FAIL
        assert "set_env.sh" in finding(report, "Ascend").advice

    def test_missing_operator_compilers_are_named(self) -> None:
        """Question 2 of the model card, second half: errors with te, tbe, tvm."""
        report = examine(FakeHost(facts(ascend=evolve(ASCEND, tbe_modules=frozenset()))))
        assert finding(report, "Ascend").status is Status.FAIL
        assert "te, tbe or tvm" in finding(report, "Ascend").advice

    def test_a_failed_self_test_repeats_the_model_cards_command(self) -> None:
        report = examine(FakeHost(facts(ascend=ASCEND), passed=False))
        assert "mindspore.set_context(device_target='Ascend')" in finding(report, "run_check").advice

    def test_devices_must_be_handed_into_a_container(self) -> None:
        report = examine(FakeHost(facts(ascend=evolve(ASCEND, device_files=()))))
        assert finding(report, "Ascend").status is Status.WARN

    def test_sync_stream_failures_have_an_answer(self) -> None:
        """Question 3 of the model card."""
        advice = finding(examine(FakeHost(facts(ascend=ASCEND))), "Ascend host log").advice
        assert "Sync stream Failed" in advice
        assert "export ASCEND_GLOBAL_EVENT_ENABLE=0 ASCEND_GLOBAL_LOG_LEVEL=2" in advice

    def test_a_forgotten_host_log_is_a_warning(self) -> None:
        report = examine(FakeHost(facts(ascend=ASCEND, environment={"ASCEND_GLOBAL_LOG_LEVEL": "2"})))
        assert finding(report, "Ascend host log").status is Status.WARN
        assert "unset ASCEND_GLOBAL_EVENT_ENABLE" in finding(report, "Ascend host log").advice

    def test_overflow_has_an_answer(self) -> None:
        """Question 1 of the model card."""
        advice = finding(examine(FakeHost(facts(ascend=ASCEND))), "overflow mode").advice
        assert 'MS_ASCEND_CHECK_OVERFLOW_MODE="INFNAN_MODE"' in advice

    def test_nothing_about_the_host_log_without_a_card(self) -> None:
        names = [f.name for f in examine(FakeHost()).findings]
        assert "Ascend host log" not in names
        assert "overflow mode" not in names

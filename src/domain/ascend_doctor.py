"""Judge what is there of an Ascend accelerator. Answers questions 1 to 3 of the model card's Q & A."""

from __future__ import annotations

from collections.abc import Iterator

from glm3.domain.finding import Finding, Status
from glm3.domain.host import AscendFacts, HostFacts

__all__ = ["ASCEND_RUNTIME_ADVICE", "HOST_LOG_VARIABLES", "judge_ascend"]

HOST_LOG_VARIABLES = ("ASCEND_GLOBAL_EVENT_ENABLE", "ASCEND_GLOBAL_LOG_LEVEL", "ASCEND_SLOG_PRINT_TO_STDOUT")

ASCEND_RUNTIME_ADVICE = (
    "slow inference, MindSpore that runs on the CPU only, and errors that name te, tbe or tvm come from the "
    "installation of MindSpore and CANN: their versions must match (https://www.mindspore.cn/install), and "
    "the toolkit's set_env.sh must be sourced in this shell. Then try again: "
    "python -c \"import mindspore; mindspore.set_context(device_target='Ascend'); mindspore.run_check()\""
)


def judge_ascend(host: HostFacts) -> Iterator[Finding]:
    """Yield findings about driver, CANN, the host log and the overflow mode; one where there is no Ascend."""
    ascend = host.ascend
    if not ascend.present:
        yield Finding(
            "Ascend",
            Status.OK,
            "no driver and no device found: everything runs on the CPU",
            "if this machine has an Ascend card: install driver and firmware until npu-smi info lists it, "
            "then CANN, and source the toolkit's set_env.sh",
        )
        return
    yield _judge_cann(ascend)
    yield _judge_host_log(host)
    mode = host.environment.get("MS_ASCEND_CHECK_OVERFLOW_MODE")
    yield Finding(
        "overflow mode",
        Status.OK,
        mode or "MS_ASCEND_CHECK_OVERFLOW_MODE is not set",
        ""
        if mode
        else "if a training overflows (overflow_cond=True) or its loss does not fall: "
        'export MS_ASCEND_CHECK_OVERFLOW_MODE="INFNAN_MODE" and start it again',
    )


def _judge_cann(ascend: AscendFacts) -> Finding:
    found = f"{len(ascend.device_files)} devices, driver {ascend.driver_version or 'unknown'}"
    if ascend.toolkit is None:
        return Finding(
            "Ascend",
            Status.FAIL,
            f"{found}, no CANN toolkit",
            "MindSpore runs on the CPU only: install CANN, then source "
            "/usr/local/Ascend/ascend-toolkit/set_env.sh in this shell",
        )
    found += f", CANN {ascend.toolkit_version or 'unknown'} in {ascend.toolkit}"
    if not {"te", "tbe"} & ascend.tbe_modules:
        return Finding(
            "Ascend",
            Status.FAIL,
            f"{found}, but Python finds neither te nor tbe",
            f"errors that name te, tbe or tvm follow from this: source {ascend.toolkit}/set_env.sh in this "
            "shell (it sets PYTHONPATH), or install the te and hccl wheels of the same CANN",
        )
    if not ascend.device_files:
        return Finding(
            "Ascend", Status.WARN, found, "no /dev/davinci* here: hand the devices into the container"
        )
    return Finding("Ascend", Status.OK, found)


def _judge_host_log(host: HostFacts) -> Finding:
    on = [name for name in HOST_LOG_VARIABLES if name in host.environment]
    if on:
        return Finding(
            "Ascend host log",
            Status.WARN,
            ", ".join(f"{name}={host.environment[name]}" for name in on),
            "logging slows the model down markedly; when the problem is found: "
            f"unset {' '.join(HOST_LOG_VARIABLES)}",
        )
    return Finding(
        "Ascend host log",
        Status.OK,
        "off",
        "if a run stops with 'Sync stream Failed' or 'exec graph failed', repeat it with "
        "export ASCEND_GLOBAL_EVENT_ENABLE=0 ASCEND_GLOBAL_LOG_LEVEL=2 ASCEND_SLOG_PRINT_TO_STDOUT=1 "
        "and read the first error; glm3 doctor --collect-logs logs.tar.gz gathers what there is",
    )

"""How many threads the kernels should start: one for each physical core that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["physical_cores"]

_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup/cpu.max")


def physical_cores(topology: Path = _TOPOLOGY, quota: Path = _CGROUP) -> int:
    """Return the physical cores among those this process may run on, at most its container's quota.

    A second thread on a core shares the vector units and the path to memory, which are what limits. Where
    the system does not tell which threads share a core, each counts as one.
    """
    threads = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = {_read(topology / f"cpu{i}/topology/thread_siblings_list") or str(i) for i in threads}
    limit, _, period = _read(quota).partition(" ")
    if limit.isdigit() and period.isdigit():
        return max(1, min(len(cores), int(limit) // int(period)))
    return len(cores)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""

"""Processor, cores and memory, inside the limits of a container."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["parse_cpuinfo", "read_cpu", "usable_cores", "usable_memory"]

CPUINFO = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")


def read_cpu() -> tuple[str, frozenset[str]]:
    """Return the processor's name and its features."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model, features = parse_cpuinfo(text)
    return model or platform.processor() or platform.machine(), features


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Read name and features from ``/proc/cpuinfo``; ``asimd`` of aarch64 is called ``neon``."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if separator:
            values.setdefault(name.strip(), value.strip())
    features = set((values.get("flags") or values.get("Features") or "").split())
    if "asimd" in features:
        features.add("neon")
    return values.get("model name", ""), frozenset(features)


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Return how many cores this process may use: its affinity, and its container's quota."""
    cores = len(os.sched_getaffinity(0))
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def usable_memory(total: int, available: int, cgroup: Path = CGROUP) -> tuple[int, int]:
    """Return total and available bytes: the machine's as given, or the container's where that has less."""
    limit, used = _read(cgroup / "memory.max"), _read(cgroup / "memory.current")
    if not limit.isdigit() or not used.isdigit():
        return total, available
    total = min(total, int(limit))
    return total, max(0, min(available, total - int(used)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""

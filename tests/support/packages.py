"""Debian packages that a test needs, installed where they are missing and that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

import pytest

__all__ = ["install_packages", "require_programs"]

_COMMAND = ("apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=200")
_SECONDS = 240


def require_programs(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Skip the test where programs are missing and the packages that have them cannot be installed."""

    def missing() -> list[str]:
        return [name for name in programs if shutil.which(name) is None]

    if missing():
        reason = install_packages(packages)
        if lacking := missing():
            pytest.skip(f"{', '.join(lacking)} cannot be installed: {reason}")


def install_packages(packages: Sequence[str]) -> str:
    """Install packages, and return why they may still be missing."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return "that takes apt-get and root"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = [*_COMMAND, *packages]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"apt-get took more than {_SECONDS} s"
    return (done.stderr.strip() or "they are not where they should be").splitlines()[-1]

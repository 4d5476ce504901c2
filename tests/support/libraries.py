"""The kernel library as it is compiled for other processors than this one, and by another compiler."""

from __future__ import annotations

import platform
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

from glm3.adapters.mindspore.kernels.compiler import KernelBuild, find_compiler, kernel_library
from glm3.entrypoints.paths import cache_folder
from support.packages import install_packages

__all__ = ["BUILDS", "TARGETS", "cpu_flags", "kernel_build"]

PLAIN_TILES = "tiles in plain C++"
CLANG = "clang++"

# What each x86-64 target needs, from the narrowest on. Elsewhere only the machine itself is tried.
TARGETS = {
    "x86-64": set(),
    "x86-64-v3": {"avx2", "fma", "f16c"},
    "alderlake": {"avx_vnni", "avx2", "fma", "f16c", "bmi2", "gfni"},
    "skylake-avx512": {"avx512f", "avx512bw"},
    "native": set(),
    PLAIN_TILES: set(),
}

BUILDS = [*TARGETS, pytest.param(CLANG, marks=pytest.mark.slow)]


@cache
def cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return frozenset(lines[0].split(":")[1].split()) if lines else frozenset()


@cache
def kernel_build(target: str = "native") -> KernelBuild:
    """Return the library compiled for ``target``; skip the test where this machine cannot run or make it."""
    command: tuple[str, ...] = ()
    processor = "native"
    if target == CLANG:
        _require_clang()
        command = ("clang++",)
    elif target == PLAIN_TILES:
        compiler = find_compiler()
        command = () if compiler is None else (*compiler.command, "-DGLM3_PLAIN_TILES")
        processor = "x86-64" if platform.machine() == "x86_64" else "native"
    elif target != "native":
        if platform.machine() != "x86_64":
            pytest.skip(f"{target} is no processor of this kind")
        if lacking := TARGETS[target] - cpu_flags():
            pytest.skip(f"this processor lacks {', '.join(sorted(lacking))}")
        processor = target
    with pytest.MonkeyPatch.context() as patch:
        if command:
            patch.setenv("CXX", shlex.join(command))
        build = kernel_library(cache_folder() / "kernels", target=processor)
    if build is None:
        pytest.skip("no C++ compiler on this machine")
    return build


def _require_clang() -> None:
    if not _clang_has_openmp():
        reason = install_packages(("clang", "libomp-dev"))
        if not _clang_has_openmp():
            pytest.skip(f"clang++ with OpenMP is not here, and cannot be installed: {reason}")


def _clang_has_openmp() -> bool:
    command = ["clang++", "-fopenmp", "-fsyntax-only", "-include", "omp.h", "-x", "c++", "/dev/null"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False

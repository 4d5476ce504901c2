"""The kernel library as compiled for other processors than this one, and by another compiler."""

from __future__ import annotations

import ctypes
import platform
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from glm3.adapters.mindspore.kernels.compiler import KernelBuild, find_compiler, kernel_library
from glm3.entrypoints.paths import cache_folder
from support.arm_core import ARCHITECTURES, EmulatedLibrary
from support.packages import install_packages

__all__ = ["BUILDS", "TARGETS", "Library", "cpu_flags", "kernel_build", "library"]

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

BUILDS = [*TARGETS, *(pytest.param(name, marks=pytest.mark.slow) for name in (CLANG, *ARCHITECTURES))]


class Library(Protocol):
    """The C functions, on whatever processor."""

    dot_name: str

    def call(self, name: str, *arguments, result=None):
        """Call ``glm3_name`` with addresses of arrays and structures, None, or numbers as ctypes has them.

        What a structure's own addresses are of, its attribute ``arrays`` holds.
        """
        ...


@cache
def library(build: str) -> Library:
    """Return the kernels of one of the ``BUILDS``; skip the test where they cannot be made or run."""
    return EmulatedLibrary(build) if build in ARCHITECTURES else NativeLibrary(kernel_build(build).path)


class NativeLibrary:
    """A library in this process."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.glm3_dot_name.restype = ctypes.c_char_p
        self.dot_name = self._library.glm3_dot_name().decode()

    def call(self, name: str, *arguments, result=None):
        function = self._library[f"glm3_{name}"]
        function.restype = result
        return function(*map(_argument, arguments))


def _argument(argument):
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.byref(argument) if isinstance(argument, ctypes.Structure | ctypes.Array) else argument


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

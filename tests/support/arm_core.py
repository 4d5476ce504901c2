"""The kernels as a 64-bit Arm processor runs them, compiled by Debian's compiler and run by QEMU."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import platform
import subprocess
import tempfile
from ctypes import c_double, c_float
from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.mindspore.kernels.compiler import FLAGS, SOURCES, library_folder
from glm3.entrypoints.paths import cache_folder
from support.packages import require_programs

__all__ = ["ARCHITECTURES", "EMULATOR", "EmulatedLibrary", "arm_program"]

# What takes the dot products of each.
ARCHITECTURES = {"armv8-a": "plain C++", "armv8.2-a+dotprod": "NEON dot product"}
EMULATOR = "qemu-aarch64"

_COMPILER = "aarch64-linux-gnu-g++"
_STRUCTURES = ctypes.Structure | ctypes.Array
_PACKAGES = ("g++-aarch64-linux-gnu", "qemu-user")
_SERVER = Path(__file__).with_name("arm_core.cpp")


def arm_program(folder: Path, source: Path, architecture: str) -> Path:
    """Compile a program around the kernels for an architecture such as ``armv8.2-a+dotprod``.

    The test is skipped where that cannot be, or the program could not run.
    """
    if platform.system() != "Linux":
        pytest.skip("QEMU runs programs of Linux on Linux only")
    require_programs((_COMPILER, EMULATOR), _PACKAGES)
    program = folder / source.stem
    flags = [flag for flag in FLAGS if flag not in ("-shared", "-fPIC")]
    command = [_COMPILER, *flags, "-static", f"-march={architecture}", f"-I{SOURCES}", source, "-o", program]
    subprocess.run(command, check=True)
    return program


class EmulatedLibrary:
    """The kernels compiled for an architecture; each call sends its arrays there and back."""

    def __init__(self, architecture: str) -> None:
        self._process = subprocess.Popen(
            [EMULATOR, _server(architecture)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"OMP_NUM_THREADS": "2"},
        )
        atexit.register(self._close)
        assert self._process.stdout is not None
        self.dot_name = self._process.stdout.readline().decode().strip()

    def call(self, name: str, *arguments, result=None):
        assert self._process.stdin is not None
        structures = [argument for argument in arguments if isinstance(argument, _STRUCTURES)]
        held = [array for structure in structures for array in getattr(structure, "arrays", ())]
        arrays = [argument for argument in (*arguments, *held) if isinstance(argument, np.ndarray)]
        owners = {array.ctypes.data: array for array in map(_owner, arrays)}
        copies = [(ctypes.addressof(structure), bytes(structure), 1) for structure in structures]
        copies += [(address, owner.tobytes(order="A"), 0) for address, owner in owners.items()]
        parts = [_words(len(name)), name.encode(), _words(len(copies))]
        for address, content, is_structure in copies:
            parts += [_words(address, len(content), is_structure), content]
        parts += [_words(len(arguments)), *map(_word, arguments)]
        self._process.stdin.write(b"".join(parts))
        self._process.stdin.flush()
        returned = self._read(8)
        for address, owner in owners.items():
            content = self._read(owner.nbytes)
            if owner.flags.writeable:
                ctypes.memmove(address, content, len(content))
        return None if result is None else np.frombuffer(returned, float if result is c_double else int)[0]

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        content = self._process.stdout.read(size)
        assert len(content) == size, "the emulated program ended"
        return content

    def _close(self) -> None:
        with self._process as process:  # waits, and closes the pipes
            assert process.stdin is not None
            process.stdin.close()


def _server(architecture: str) -> Path:
    """Return the program that answers calls, compiled unless an earlier test did it."""
    folder = library_folder(cache_folder() / "emulated", unit=_SERVER.name, target=architecture)
    program = folder / hashlib.sha256(_SERVER.read_bytes()).hexdigest()[:20]
    require_programs((EMULATOR,), _PACKAGES)
    if not program.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as build:
            arm_program(Path(build), _SERVER, architecture).replace(program)
    return program


def _owner(array: np.ndarray) -> np.ndarray:
    """Return the array that has the memory, and with it what surrounds an output."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _words(*numbers: int) -> bytes:
    return np.array(numbers, np.int64).tobytes()


def _word(argument) -> bytes:
    if argument is None:
        return _words(0)
    if isinstance(argument, np.ndarray):
        return _words(argument.ctypes.data)
    if isinstance(argument, _STRUCTURES):
        return _words(ctypes.addressof(argument))
    return np.float64(argument.value).tobytes() if isinstance(argument, c_float) else _words(argument.value)

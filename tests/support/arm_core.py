"""Matrix products as a 64-bit Arm processor computes them, compiled by Debian's compiler and run by QEMU."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.mindspore.inference.structures import Matrix, packed_matrix, plain_matrix
from glm3.adapters.mindspore.kernels.compiler import FLAGS, SOURCES
from glm3.domain.quantization import PackedWeight
from glm3.domain.tensors import DType
from support.packages import require_programs

__all__ = ["EMULATOR", "ArmProducts", "arm_program", "build_arm_products"]

EMULATOR = "qemu-aarch64"

_COMPILER = "aarch64-linux-gnu-g++"
_PACKAGES = ("g++-aarch64-linux-gnu", "qemu-user")


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


def build_arm_products(folder: Path, architecture: str) -> ArmProducts:
    """Compile the kernels for an architecture, and start them."""
    return ArmProducts(arm_program(folder, Path(__file__).with_name("arm_products.cpp"), architecture))


class ArmProducts:
    """A process that computes products; numpy arrays in and out."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [EMULATOR, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"OMP_NUM_THREADS": "2"}
        )
        assert self._process.stdout is not None
        self.dot_name = self._process.stdout.readline().decode().strip()

    def packed(self, weight: PackedWeight, x, bias=None, residual=None):
        arrays = [weight.data, weight.scales, weight.zeros]
        return self._ask(packed_matrix(weight), arrays, x, bias, residual)

    def plain(self, carrier, dtype: DType, x, bias=None, residual=None):
        matrix = plain_matrix(carrier.ctypes.data, carrier.shape, dtype)
        return self._ask(matrix, [carrier, None, None], x, bias, residual)

    def close(self) -> None:
        with self._process as process:  # waits, and closes the pipes
            assert process.stdin is not None
            process.stdin.close()

    def _ask(self, matrix: Matrix, arrays, x, bias, residual):
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        sizes = [0 if array is None else array.nbytes for array in arrays]
        given = [int(array is not None) for array in (bias, residual)]
        head = [matrix.storage, matrix.group, matrix.out, matrix.inputs, len(x), *sizes, *given]
        self._process.stdin.write(np.array(head, np.int64).tobytes())
        for array in (x, *arrays, bias, residual):
            if array is not None:
                self._process.stdin.write(array.tobytes())
        self._process.stdin.flush()
        outcome, touched = np.frombuffer(self._process.stdout.read(16), np.int64)
        size = 4 * len(x) * matrix.out
        y = np.frombuffer(self._process.stdout.read(size), np.float32).reshape(len(x), matrix.out)
        assert not touched, "wrote beside its output"
        assert outcome == 0, f"refused with {outcome}"
        return y

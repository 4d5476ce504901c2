"""The kernel cache port over the compiler's folder of libraries."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from glm3.adapters.mindspore.kernels.compiler import kernel_library, library_folder
from glm3.domain.errors import BackendError
from glm3.domain.ports.kernel_cache import KernelFile

__all__ = ["CompiledKernels"]


class CompiledKernels:
    """Libraries below one folder, each beside a file that says what it was compiled with and for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(self, report: Callable[[str], object]) -> KernelFile:
        build = kernel_library(self._folder, report=report)
        if build is None:
            raise BackendError("no compiler is here", hint="install g++ or clang++, or set CXX")
        return self._describe(build.path)

    def files(self) -> Sequence[KernelFile]:
        found = [self._describe(path) for path in sorted(self._folder.rglob("*.so"))]
        return sorted(found, key=lambda file: not file.usable)

    def _describe(self, path: Path) -> KernelFile:
        try:
            facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            facts = {}
        known = facts if isinstance(facts, dict) else {}
        return KernelFile(
            path=path,
            nbytes=path.stat().st_size,
            usable=path.parent == library_folder(self._folder),
            **{name: str(known.get(name, "")) for name in ("compiler", "processor", "instructions")},
        )

"""Read the facts of a Linux machine."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import psutil
from attrs import field, frozen

from glm3.adapters.host.ascend import read_ascend
from glm3.adapters.host.cpu import read_cpu, usable_cores, usable_memory
from glm3.adapters.host.runtime_probe import MARK
from glm3.domain.host import CompilerFacts, HostFacts, KernelCacheFacts, RuntimeFacts

__all__ = ["LocalHost"]

PACKAGES = ("glm3", "mindspore", "numpy", "safetensors", "torch")
VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GLOG_v")
PREFIXES = ("ASCEND_", "GLM3_", "HCCL_", "MS_")
COMPILERS = ("c++", "g++", "clang++")
RUNTIME_SECONDS = 300.0
"""How long MindSpore's self-test may take; compiling operators on Ascend for the first time is slow."""


@frozen
class LocalHost:
    """The machine we run on; compiled kernels go to ``cache_folder``, weights to ``download_folder``."""

    cache_folder: Path
    download_folder: Path
    timeout: float = field(default=RUNTIME_SECONDS)

    def facts(self) -> HostFacts:
        """See :class:`glm3.domain.ports.host.Host`."""
        model, features = read_cpu()
        memory = psutil.virtual_memory()
        total, available = usable_memory(memory.total, memory.available)
        version = sys.version_info
        return HostFacts(
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=(version.major, version.minor, version.micro),
            packages={name: _version(name) for name in PACKAGES},
            cpu_model=model,
            cpu_features=features,
            cores=usable_cores(),
            memory_total=total,
            memory_available=available,
            cache_folder=str(self.cache_folder),
            cache_free=_free_bytes(self.cache_folder.absolute()),
            download_folder=str(self.download_folder),
            download_free=_free_bytes(self.download_folder.absolute()),
            kernel_cache=_kernel_cache(self.cache_folder / "kernels"),
            compiler=_compiler(),
            ascend=read_ascend(),
            environment={
                name: value
                for name, value in sorted(os.environ.items())
                if name in VARIABLES or name.startswith(PREFIXES)
            },
        )

    def try_runtime(self, target: str) -> RuntimeFacts:
        """See :class:`glm3.domain.ports.host.Host`; a crash or a hang of native code is caught."""
        command = [sys.executable, "-m", "glm3.adapters.host.runtime_probe", target]
        try:
            done = subprocess.run(  # noqa: S603  # our own module, our own interpreter
                command, capture_output=True, text=True, errors="replace", timeout=self.timeout, check=False
            )
        except subprocess.TimeoutExpired:
            error = f"no answer within {self.timeout:g} seconds"
            return RuntimeFacts(target=target, passed=False, bfloat16=False, error=error)
        for line in done.stdout.splitlines():
            if line.startswith(MARK):
                return RuntimeFacts(target=target, **json.loads(line.removeprefix(MARK)))
        tail = done.stderr.strip().splitlines()[-1:] or [f"the process ended with {done.returncode}"]
        return RuntimeFacts(target=target, passed=False, bfloat16=False, error=tail[0])


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _free_bytes(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _kernel_cache(folder: Path) -> KernelCacheFacts:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return KernelCacheFacts(str(folder), len(sizes), sum(sizes))


def _compiler() -> CompilerFacts | None:
    for name in (os.environ.get("CXX"), *COMPILERS):
        path = shutil.which(name) if name else None
        if path is not None:
            return CompilerFacts(path, _first_line(path, "--version"))
    return None


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  # a compiler found on PATH
            command, capture_output=True, text=True, errors="replace", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    return next(iter(done.stdout.splitlines()), "says nothing about itself")

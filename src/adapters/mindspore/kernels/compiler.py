"""Compile the native kernels for this machine, once, and keep the library in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from glm3.domain.errors import BackendError

__all__ = ["Compiler", "KernelBuild", "find_compiler", "kernel_library", "library_folder"]

SOURCES = Path(__file__).parent / "native"
UNIT = "library.cpp"

FLAGS = (
    "-std=c++17",
    "-O3",
    # Of -ffast-math only what keeps NaN, infinity and the order of sums: overflow must stay visible, and a
    # resumed run must repeat the bits of the straight one.
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-fopenmp",
    "-fPIC",
    "-shared",
)

_log = logging.getLogger(__name__)

_TIMEOUT = 600.0  # seconds; 10 are usual
_STDERR_LINES = 20


@frozen
class Compiler:
    """A C++ compiler: the command that starts it and what it says about itself."""

    command: tuple[str, ...]
    version: str


@frozen
class KernelBuild:
    """A kernel library ready to load, and how it came about."""

    path: Path
    compiled: bool
    seconds: float


def find_compiler() -> Compiler | None:
    """Return the compiler ``CXX`` names, else the first of g++, clang++ and c++ that runs, else None.

    Raises:
        BackendError: ``CXX`` is set and does not run.
    """
    if named := os.environ.get("CXX"):
        compiler = _probe(tuple(shlex.split(named)))
        if compiler is None:
            raise BackendError(
                "the compiler that CXX names does not run",
                field="CXX",
                found=repr(named),
                hint="unset CXX, or set it to a C++17 compiler",
            )
        return compiler
    candidates = (_probe((name,)) for name in ("g++", "clang++", "c++"))
    return next((compiler for compiler in candidates if compiler is not None), None)


def kernel_library(
    cache: Path,
    *,
    report: Callable[[str], object] = _log.info,
    sources: Path = SOURCES,
    unit: str = UNIT,
    target: str = "native",
) -> KernelBuild | None:
    """Return this machine's library, compiled unless ``cache`` has it; None where nothing can compile it.

    A compiler is asked for its own build of it; without a compiler any build will do. Processes that compile
    at the same time do the work twice and agree on the result: the last rename wins.

    Args:
        cache: folder of compiled kernels; made if needed.
        report: called with a line for the user before a compilation and after it; logged by default.
        sources: folder of ``unit`` and all it includes.
        unit: the source file to compile.
        target: the processor to compile for, as ``-march`` names it; by default this one.

    Raises:
        BackendError: compiling failed (the end of the compiler's messages is quoted), or ``cache`` cannot
            be written.
    """
    started = time.perf_counter()
    folder = library_folder(cache, sources, unit, target)
    compiler = find_compiler()
    if compiler is None:
        built = next((path for path in sorted(folder.glob("*.so")) if _loads(path)), None)
        return None if built is None else KernelBuild(built, compiled=False, seconds=_since(started))
    path = folder / f"{_digest(*compiler.command, compiler.version)}.so"
    if _loads(path):
        return KernelBuild(path, compiled=False, seconds=_since(started))
    report(f"compiling the CPU kernels with {compiler.version} (once for this machine)")
    try:
        _compile(compiler, sources / unit, target, path)
    except OSError as error:
        raise BackendError(
            f"cannot write compiled kernels: {error.strerror or error}",
            path=cache,
            hint="set GLM3_CACHE to a folder that can be written, or choose the stock kernels",
        ) from error
    build = KernelBuild(path, compiled=True, seconds=_since(started))
    report(f"compiled the CPU kernels in {build.seconds:.1f} s: {path}")
    return build


def library_folder(cache: Path, sources: Path = SOURCES, unit: str = UNIT, target: str = "native") -> Path:
    """Return where the libraries of these sources for this processor are, one for each compiler."""
    flags = (*FLAGS, _target_flag(target), unit)
    return cache / _digest(*_source_texts(sources), *flags, platform.machine(), _cpu_features())


def _probe(command: tuple[str, ...]) -> Compiler | None:
    if not command or shutil.which(command[0]) is None:
        return None
    try:
        done = _run([*command, "--version"], timeout=30.0)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    return Compiler(command, lines[0].strip()) if done.returncode == 0 and lines else None


def _source_texts(sources: Path) -> list[str]:
    paths = sorted([*sources.rglob("*.cpp"), *sources.rglob("*.h")])
    return [f"{path.relative_to(sources).as_posix()}\n{path.read_text(encoding='utf-8')}" for path in paths]


def _digest(*parts: str) -> str:
    """Name what a build depends on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:20]


def _since(started: float) -> float:
    return time.perf_counter() - started


def _cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return model and instruction sets of the first core: what ``native`` stands for."""
    try:
        first_core = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(line for line in first_core.splitlines() if line.startswith(wanted))


def _loads(path: Path) -> bool:
    """Say whether the library is there, whole, and for this processor.

    A cache may have been cut by a full disk, or been copied from a machine that tells nothing of itself.
    """
    if not path.is_file():
        return False
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return False
    runs_here = getattr(library, "glm3_runs_here", None)
    return runs_here is None or bool(runs_here())


def _write_facts(path: Path, compiler: Compiler) -> None:
    """Put beside a library what it was compiled with and for."""
    name = getattr(ctypes.CDLL(str(path)), "glm3_dot_name", None)
    if name is not None:
        name.restype = ctypes.c_char_p
    facts = {
        "compiler": compiler.version,
        "processor": _cpu_features().partition("\n")[0].partition(":")[2].strip() or platform.machine(),
        "instructions": "" if name is None else name().decode(),
    }
    path.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")


def _target_flag(target: str) -> str:
    x86 = platform.machine() in ("x86_64", "AMD64", "i686")
    return f"-mcpu={target}" if target == "native" and not x86 else f"-march={target}"


def _compile(compiler: Compiler, unit: Path, target: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as folder:
        built = Path(folder) / path.name
        try:
            command = [*compiler.command, *FLAGS, _target_flag(target), str(unit), "-o", str(built)]
            done = _run(command, timeout=_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise BackendError(f"compiling the CPU kernels took more than {_TIMEOUT:.0f} s") from error
        if done.returncode != 0:
            raise _failure(compiler, done.stderr, f"exit code {done.returncode}")
        if not _loads(built):
            raise _failure(compiler, done.stderr, "a library that does not load")
        _write_facts(built, compiler)
        built.with_suffix(".json").replace(path.with_suffix(".json"))
        built.replace(path)


def _failure(compiler: Compiler, stderr: str, found: str) -> BackendError:
    tail = "\n".join(stderr.splitlines()[-_STDERR_LINES:])
    return BackendError(
        f"compiling the CPU kernels failed:\n{tail}",
        expected=f"{' '.join(compiler.command)} ({compiler.version}) to build them",
        found=found,
        hint="set CXX to g++ 11 or later, or to clang++ 13 or later with libomp, or choose the stock kernels",
    )


def _run(command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # a compiler found on PATH, without a shell
        command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
    )

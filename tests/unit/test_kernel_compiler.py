"""Finding a compiler, building the native kernels once, and what happens when either fails."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from glm3.adapters.mindspore.kernels.compiler import (
    KernelBuild,
    find_compiler,
    kernel_library,
    library_folder,
)
from glm3.adapters.mindspore.kernels.store import CompiledKernels
from glm3.domain.errors import BackendError
from support.native import kernel_build

RUNS_NOWHERE = 'extern "C" __attribute__((visibility("default"))) int glm3_runs_here() { return 0; }\n'


@pytest.fixture
def sources(tmp_path):
    """Sources that compile in no time."""
    kernel_build()  # skips where no compiler is
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "library.cpp").write_text('#include "answer.h"\nextern "C" int answer() { return ANSWER; }\n')
    (folder / "answer.h").write_text("#define ANSWER 42\n")
    return folder


def test_a_library_is_built_once(tmp_path, sources):
    lines = []
    first = kernel_library(tmp_path / "cache", sources=sources, report=lines.append)
    again = kernel_library(tmp_path / "cache", sources=sources, report=lines.append)
    assert first.compiled
    assert not again.compiled
    assert first.path == again.path
    assert len(lines) == 2
    left = {path.name for path in first.path.parent.iterdir()}
    assert left == {first.path.name, first.path.with_suffix(".json").name}


def test_a_changed_header_or_compiler_means_another_library(tmp_path, sources, monkeypatch):
    first = kernel_library(tmp_path / "cache", sources=sources)
    (sources / "answer.h").write_text("#define ANSWER 43\n")
    second = kernel_library(tmp_path / "cache", sources=sources)
    monkeypatch.setenv("CXX", " ".join([*find_compiler().command, "-DOTHER"]))
    third = kernel_library(tmp_path / "cache", sources=sources)
    assert second.compiled
    assert third.compiled
    assert len({first.path, second.path, third.path}) == 3


def test_a_cut_library_is_built_again(tmp_path, sources):
    """A full disk or a crash may leave one behind; loading it would fail."""
    first = kernel_library(tmp_path / "cache", sources=sources)
    whole = first.path.read_bytes()
    first.path.unlink()  # never cut a file that this process has mapped
    first.path.write_bytes(whole[:100])
    again = kernel_library(tmp_path / "cache", sources=sources)
    assert again.compiled
    assert again.path.stat().st_size == len(whole)


def test_a_failing_compilation_quotes_the_compiler(tmp_path, sources):
    (sources / "answer.h").write_text('#error "no answer today"\n')
    with pytest.raises(BackendError, match="no answer today") as caught:
        kernel_library(tmp_path / "cache", sources=sources)
    assert "CXX" in caught.value.hint
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path, sources):
    blocked = tmp_path / "cache"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(BackendError, match="cannot write") as caught:
        kernel_library(blocked, sources=sources)
    assert caught.value.path == blocked


def test_without_a_compiler_there_is_no_library_unless_one_was_built_before(tmp_path, sources, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    built = kernel_library(tmp_path / "full", sources=sources)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert find_compiler() is None
    assert kernel_library(tmp_path / "empty", sources=sources) is None
    found = kernel_library(tmp_path / "full", sources=sources)
    assert found.path == built.path
    assert not found.compiled


def test_cxx_that_does_not_run_is_an_error_not_a_silent_fallback(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError, match="CXX"):
        find_compiler()


def test_a_library_for_another_processor_is_built_again(tmp_path, sources):
    """It would end the process at its first unknown instruction."""
    first = kernel_library(tmp_path / "cache", sources=sources)
    (sources / "foreign.cpp").write_text(RUNS_NOWHERE)
    foreign = tmp_path / "foreign.so"
    subprocess.run(
        [*find_compiler().command, "-shared", "-fPIC", sources / "foreign.cpp", "-o", foreign], check=True
    )
    (sources / "foreign.cpp").unlink()
    first.path.unlink()
    foreign.replace(first.path)
    again = kernel_library(tmp_path / "cache", sources=sources)
    assert again.compiled


def test_a_compiler_that_makes_what_cannot_run_is_named(tmp_path, sources):
    (sources / "library.cpp").write_text(RUNS_NOWHERE)
    with pytest.raises(BackendError, match="failed"):
        kernel_library(tmp_path / "cache", sources=sources)


def test_the_cache_tells_what_it_holds(tmp_path, monkeypatch):
    """The libraries of this machine come first; one without its facts is listed all the same."""
    lines = []
    store = CompiledKernels(tmp_path)
    assert store.files() == []
    monkeypatch.setattr("glm3.adapters.mindspore.kernels.store.kernel_library", cheap_library)
    built = store.build(lines.append)
    other = tmp_path / "00000" / "1.so"
    other.parent.mkdir()
    other.write_bytes(b"old")
    assert len(lines) == 2
    assert built.compiler == find_compiler().version
    assert [(file.path, file.usable) for file in store.files()] == [(built.path, True), (other, False)]
    assert store.files()[1].nbytes == 3


def cheap_library(folder, *, report):
    """Build a library in no time where the real one would be."""
    build = kernel_build()
    path = library_folder(folder) / build.path.name
    path.parent.mkdir(parents=True)
    for suffix in (".so", ".json"):
        shutil.copy(build.path.with_suffix(suffix), path.with_suffix(suffix))
    report("compiling")
    report("compiled")
    return KernelBuild(path, compiled=True, seconds=0)


def test_the_library_names_its_instructions():
    facts = json.loads(kernel_build().path.with_suffix(".json").read_text())
    assert facts["instructions"].removesuffix(", AMX") in (
        "AVX-512 VNNI",
        "AVX-512",
        "AVX VNNI",
        "AVX2",
        "NEON dot product",
        "plain C++",
    )
    assert facts["processor"]

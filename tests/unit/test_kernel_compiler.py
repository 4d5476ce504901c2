"""Finding a compiler, building the native kernels once, and what happens when either fails."""

from __future__ import annotations

import shutil

import pytest

from glm3.adapters.mindspore.kernels.compiler import find_compiler, kernel_library
from glm3.domain.errors import BackendError
from support.native import kernel_build


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
    assert [path.name for path in first.path.parent.iterdir()] == [first.path.name]  # nothing left behind


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


@pytest.mark.skipif(shutil.which("clang++") is None, reason="no clang++ on this machine")
def test_clang_builds_the_kernels_too(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "clang++")
    assert kernel_library(tmp_path).compiled

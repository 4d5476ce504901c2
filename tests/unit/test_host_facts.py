"""Reading a Linux machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from glm3.adapters.host import local
from glm3.adapters.host.ascend import read_ascend
from glm3.adapters.host.cpu import parse_cpuinfo, usable_cores, usable_memory
from glm3.adapters.host.local import LocalHost


def test_x86_features_are_read_from_flags() -> None:
    text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 avx512f\nprocessor\t: 1\n"
    assert parse_cpuinfo(text) == ("Some CPU @ 2 GHz", frozenset({"fpu", "avx2", "avx512f"}))


def test_neon_has_another_name_on_aarch64() -> None:
    _, features = parse_cpuinfo("processor : 0\nFeatures : fp asimd bf16 i8mm\n")
    assert {"neon", "bf16", "i8mm"} <= features


def test_an_empty_cpuinfo_has_no_features() -> None:
    assert parse_cpuinfo("") == ("", frozenset())


def test_a_container_limits_memory_and_cores(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("4000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert usable_memory(10_000, 8_000, tmp_path) == (4000, 3000)
    assert usable_cores(tmp_path) == 1


def test_no_limit_leaves_the_machines_figures(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_memory(10_000, 8_000, tmp_path) == (10_000, 8_000)
    assert usable_cores(tmp_path) >= 1


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "one.so").write_bytes(b"12345")
    facts = LocalHost(tmp_path, tmp_path).facts()
    assert facts.python == sys.version_info[:3]
    assert facts.packages["mindspore"] is not None
    assert facts.cores >= 1
    assert 0 < facts.memory_available <= facts.memory_total
    assert facts.cache_free > 0
    assert (facts.kernel_cache.files, facts.kernel_cache.nbytes) == (1, 5)


def test_folders_that_do_not_exist_yet_have_free_space(tmp_path: Path) -> None:
    facts = LocalHost(tmp_path / "a" / "b", Path("not there")).facts()
    assert facts.cache_free > 0
    assert facts.download_free > 0


def test_only_telling_variables_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A doctor's report goes into bug reports: it must not carry secrets."""
    monkeypatch.setenv("MY_PASSWORD", "secret")
    monkeypatch.setenv("ASCEND_GLOBAL_LOG_LEVEL", "2")
    environment = LocalHost(tmp_path, tmp_path).facts().environment
    assert environment["ASCEND_GLOBAL_LOG_LEVEL"] == "2"
    assert "MY_PASSWORD" not in environment


def test_the_named_compiler_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "my-compiler"
    compiler.write_text("#!/bin/sh\necho my compiler 1.0\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    found = LocalHost(tmp_path, tmp_path).facts().compiler
    assert found is not None
    assert (found.path, found.version) == (str(compiler), "my compiler 1.0")


def test_no_compiler_is_a_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert LocalHost(tmp_path, tmp_path).facts().compiler is None


def test_an_ascend_machine_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.delenv(name, raising=False)
    install = tmp_path / "usr/local/Ascend"
    (tmp_path / "dev").mkdir()
    for name in ("davinci0", "davinci1", "davinci_manager"):
        (tmp_path / "dev" / name).touch()
    (install / "driver").mkdir(parents=True)
    (install / "driver/version.info").write_text("Version=24.1.rc2\nascendhal_version=7.35.23\n")
    (install / "ascend-toolkit/latest").mkdir(parents=True)
    (install / "ascend-toolkit/latest/version.cfg").write_text(
        "# version: 1.0\nruntime_running_version=[7.3.0.1.231:8.0.RC2]\n"
    )
    found = read_ascend(tmp_path)
    assert found.device_files == ("/dev/davinci0", "/dev/davinci1")
    assert found.driver_version == "24.1.rc2"
    assert found.toolkit == str(install / "ascend-toolkit/latest")
    assert found.toolkit_version == "8.0.RC2"
    assert found.present


def test_an_empty_machine_has_no_ascend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not read_ascend(tmp_path).present


def test_a_runtime_that_hangs_is_given_up(tmp_path: Path) -> None:
    found = LocalHost(tmp_path, tmp_path, timeout=0.01).try_runtime("CPU")
    assert not found.passed
    assert found.error == "no answer within 0.01 seconds"


def test_a_runtime_that_crashes_is_a_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = tmp_path / "python"
    crash.write_text("#!/bin/sh\necho 'Segmentation fault' >&2\nexit 139\n")
    crash.chmod(0o755)
    monkeypatch.setattr(local.sys, "executable", str(crash))
    found = LocalHost(tmp_path, tmp_path).try_runtime("CPU")
    assert not found.passed
    assert found.error == "Segmentation fault"


def test_mindspore_works_here(tmp_path: Path) -> None:
    found = LocalHost(tmp_path, tmp_path).try_runtime("CPU")
    assert found.error is None
    assert found.passed
    assert found.bfloat16
    assert "2.10" in found.run_check


def test_an_unusable_target_is_a_fact(tmp_path: Path) -> None:
    found = LocalHost(tmp_path, tmp_path).try_runtime("Nonsense")
    assert not found.passed
    assert found.error

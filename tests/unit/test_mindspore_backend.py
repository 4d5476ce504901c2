"""Which kernel set the MindSpore backend takes, and what it says where the fast one cannot be had."""

from __future__ import annotations

import logging
import os

import pytest

from glm3.adapters.mindspore import backend as backend_module
from glm3.adapters.mindspore.backend import MindSporeBackend
from glm3.domain.errors import BackendError, ConfigError
from glm3.domain.ports.backend import LoadOptions
from glm3.entrypoints.paths import cache_folder
from support.models import CpuKernels, StockKernels, tiny_config
from support.native import kernel_build


@pytest.fixture(autouse=True)
def nothing_said_yet():
    backend_module._warn_once.cache_clear()


def kernels_of(backend, wanted):
    model = backend.load(tiny_config(), None, LoadOptions(kernels=wanted))
    return type(model.network.kernels)


def test_auto_takes_the_compiled_kernels():
    kernel_build()  # skips where no compiler is
    backend = MindSporeBackend(cache_folder() / "kernels")
    assert kernels_of(backend, "auto") is kernels_of(backend, "cpu") is CpuKernels
    assert kernels_of(backend, "stock") is StockKernels


def test_without_a_compiler_auto_falls_back_with_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    backend = MindSporeBackend(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert kernels_of(backend, "auto") is StockKernels
        assert kernels_of(backend, "auto") is StockKernels
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "compiler" in caplog.text
    with pytest.raises(BackendError, match="compiler"):
        kernels_of(backend, "cpu")


def test_a_compiler_that_does_not_run_is_named_in_the_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.WARNING):
        assert kernels_of(MindSporeBackend(tmp_path), "auto") is StockKernels
    assert "no-such-compiler" in caplog.text


def test_an_unknown_set_is_refused():
    with pytest.raises(BackendError, match="auto, cpu, stock"):
        MindSporeBackend().load(tiny_config(), None, LoadOptions(kernels="cuda"))


def test_threads_that_no_machine_has_use_for_are_refused():
    cores = os.cpu_count()
    most = rf"threads: too many for this machine \(expected at most {4 * cores}: .*found {4 * cores + 1}\)"
    with pytest.raises(ConfigError, match=most):
        MindSporeBackend().load(tiny_config(), None, LoadOptions(kernels="stock", threads=4 * cores + 1))
    backend_module._require_threads(4 * cores)
    with pytest.raises(ConfigError, match="threads: too few"):
        LoadOptions(threads=0)

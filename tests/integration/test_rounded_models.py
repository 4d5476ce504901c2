"""Models whose weights are rounded while they are loaded, over caches of every format."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from glm3.adapters.memory.numpy_backend import NumpyBackend
from glm3.adapters.mindspore.backend import MindSporeBackend
from glm3.adapters.mindspore.kernels.cores import physical_cores
from glm3.domain.errors import BackendError, ConfigError, InvalidInputError
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.tensors import DType, from_float32
from glm3.entrypoints.paths import cache_folder
from support.models import (
    ArrayReader,
    NativeModel,
    golden_arrays,
    golden_config,
    golden_parameters,
    native_model,
    tiny_config,
)
from support.native import kernel_build

NAME = "wide_heads"


@pytest.fixture(scope="module")
def backend():
    kernel_build()  # skips where no compiler is
    return MindSporeBackend(cache_folder() / "kernels")


def load(backend, dtype=DType.FLOAT32, **options):
    parameters = golden_parameters(NAME)
    carriers = {name: from_float32(array, dtype) for name, array in parameters.items()}
    reader = ArrayReader(carriers, dict.fromkeys(carriers, dtype))
    return backend.load(golden_config(NAME), reader, LoadOptions(**options))


def error(actual, expected):
    """Return the root mean square difference over that of ``expected`` around its mean."""
    return np.sqrt(np.mean((actual - expected) ** 2) / np.var(expected))


@pytest.mark.parametrize("quant", ["int8", "int8-g32", "int4", "int4-g64-asym"])
def test_logits_are_those_of_the_rounded_weights(backend, quant):
    """The reference has the same levels. Rounding the inputs costs less than weights of eight bits cost."""
    golden = golden_arrays(NAME)
    ids = golden["input_ids"]
    cost_of_int8 = error(load(NumpyBackend(), quant="int8").forward(ids), golden["logits"])
    model, reference = load(backend, quant=quant), load(NumpyBackend(), quant=quant)
    assert isinstance(model, NativeModel)
    assert error(model.forward(ids), reference.forward(ids)) < cost_of_int8 < 0.06
    for state, wanted in zip(model.hidden_states(ids), reference.hidden_states(ids), strict=True):
        assert error(state, wanted) < cost_of_int8


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.BFLOAT16, DType.FLOAT64])
def test_checkpoints_of_any_precision_are_rounded(backend, dtype):
    ids = golden_arrays(NAME)["input_ids"]
    narrow, reference = load(backend, dtype, quant="int8"), load(NumpyBackend(), dtype, quant="int8")
    assert error(narrow.forward(ids), reference.forward(ids)) < 0.05


def test_parameters_are_what_the_levels_stand_for(backend):
    model, reference = load(backend, quant="int4"), load(NumpyBackend(), quant="int4")
    expected = reference.parameters()
    for name, array in model.parameters().items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(("kv_cache", "tolerance"), [("fp32", 1e-5), ("fp16", 2e-3), ("int8", 0.05)])
def test_cache_formats(backend, kv_cache, tolerance):
    """Of a model with plain weights, in chunks and single tokens, against whole sequences."""
    ids = golden_arrays(NAME)["input_ids"][0].tolist()
    model = load(backend, kv_cache=kv_cache)
    cache = model.new_cache(2, len(ids))
    assert cache.format == kv_cache
    model.extend(cache, [1], [ids[:-3]])
    cache.copy_row(1, 0)
    for token in ids[-3:]:
        scores = model.extend(cache, [0], [[token]])
    expected = model.forward(np.array([ids]))[0, -1]
    assert error(scores[0], expected) < tolerance


def test_the_cache_is_half_as_large_beside_rounded_weights(backend):
    assert load(backend, quant="int4").new_cache(1, 8).format == "fp16"
    assert load(backend).new_cache(1, 8).format == "fp32"
    assert load(backend, quant="int4", kv_cache="fp32").new_cache(1, 8).format == "fp32"


def test_a_prompt_longer_than_a_pass_is_cut(monkeypatch):
    """To the bit, because every token is computed alone."""
    config = tiny_config()
    parameters = load_parameters(config)
    ids = np.random.default_rng(0).integers(0, config.padded_vocab_size, (3, 21))
    lengths = (21, 2, 9)
    whole, cut = native_model(config, parameters), native_model(config, parameters)
    tokens = [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
    expected = whole.extend(whole.new_cache(3, 21), [2, 0, 1], tokens)
    monkeypatch.setattr("glm3.adapters.mindspore.inference.runner._CHUNK", 8)
    actual = cut.extend(cut.new_cache(3, 21), [2, 0, 1], tokens)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(cut.forward(ids), whole.forward(ids), rtol=0, atol=1e-5)


def load_parameters(config):
    from glm3.adapters.memory.numpy_model import NumpyModel

    return NumpyModel.random(config, seed=3, scale=0.3).parameters()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(backend, bad):
    parameters = load_parameters(tiny_config())
    name = "transformer.encoder.layers.1.mlp.dense_h_to_4h.weight"
    parameters[name][17, 3] = bad
    with pytest.raises(InvalidInputError, match=f"{name}, output channel 17"):
        backend.load(tiny_config(), ArrayReader(parameters), LoadOptions(quant="int8"))


@pytest.mark.parametrize(
    "options", [{"quant": "int4", "kernels": "stock"}, {"kv_cache": "int8", "kernels": "stock"}]
)
def test_the_stock_operators_cannot(backend, options):
    with pytest.raises(BackendError, match="stock"):
        load(backend, **options)


def test_random_weights_are_not_rounded(backend):
    with pytest.raises(BackendError, match="checkpoint"):
        backend.load(tiny_config(), None, LoadOptions(quant="int4"))


def test_without_a_compiler_rounded_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match="compiler"):
        load(MindSporeBackend(tmp_path), quant="int4")
    with pytest.raises(BackendError, match="compiler"):
        load(MindSporeBackend(tmp_path), kv_cache="fp16")


@pytest.mark.parametrize("options", [{"quant": "int5"}, {"kv_cache": "fp8"}])
def test_unknown_formats_are_refused(options):
    with pytest.raises(ConfigError):
        LoadOptions(**options)
    with pytest.raises(ConfigError):
        evolve(LoadOptions(), **options)


def test_threads_of_one_core_count_once(tmp_path):
    import os

    for i in os.sched_getaffinity(0):
        (tmp_path / f"cpu{i}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{i}/topology/thread_siblings_list").write_text("0-7\n")
    assert physical_cores(tmp_path, tmp_path / "none") == 1
    assert physical_cores(tmp_path / "none", tmp_path / "none") == len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert physical_cores(tmp_path / "none", tmp_path / "cpu.max") == 1

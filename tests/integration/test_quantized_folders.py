"""Folders of rounded weights on the native kernels: what they score, and writers that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest

from glm3.adapters.memory.numpy_backend import NumpyBackend
from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.mindspore.backend import MindSporeBackend
from glm3.adapters.mindspore.quantizer import NativeQuantizer
from glm3.domain.atomic_write import remove_leftovers
from glm3.domain.errors import ConfigError
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.quantization import PackedWeight
from glm3.entrypoints.paths import cache_folder
from support.cli import REPOSITORY, glm3
from support.models import NativeModel, tiny_config
from support.native import kernel_build
from support.rounded_folders import (
    STORE,
    quantize_folder,
    small_config,
    write_official_folder,
    write_plain_folder,
    write_small_folder,
)

IDS = np.random.default_rng(0).integers(0, small_config().padded_vocab_size, (2, 12))


@pytest.fixture(scope="module")
def backend():
    kernel_build()  # skips where no compiler is
    return MindSporeBackend(cache_folder() / "kernels")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_small_folder(tmp_path_factory.mktemp("plain") / "model")


def load(backend, folder, config=None, **options):
    with STORE.open(folder) as reader:
        return backend.load(config or small_config(), reader, LoadOptions(**options))


@pytest.mark.parametrize("scheme", ["int4", "int4-g64-asym", "int8", "int8-g32"])
def test_a_folder_scores_what_rounding_at_load_scores(backend, plain, tmp_path, scheme):
    """To the bit, over the same cache."""
    quantize_folder(plain, tmp_path / "made", scheme, NativeQuantizer(cache_folder() / "kernels"))
    stored, rounded = load(backend, tmp_path / "made"), load(backend, plain, quant=scheme)
    assert isinstance(stored, NativeModel)
    np.testing.assert_array_equal(stored.forward(IDS), rounded.forward(IDS))
    caches = [model.new_cache(1, 16) for model in (stored, rounded)]
    assert caches[0].format == caches[1].format == "fp16"
    for model, cache in zip((stored, rounded), caches, strict=True):
        model.extend(cache, [0], [IDS[0, :8].tolist()])
    scores = [m.extend(c, [0], [[5]]) for m, c in zip((stored, rounded), caches, strict=True)]
    np.testing.assert_array_equal(*scores)


def test_large_matrices_stay_in_the_file(backend, tmp_path):
    """Mapped and not copied: the array's memory is the mapping's."""
    config = tiny_config(hidden_size=64, ffn_hidden_size=128, kv_channels=16, padded_vocab_size=40_000)
    source = write_plain_folder(tmp_path / "plain", NumpyModel.random(config, seed=1).parameters(), config)
    quantize_folder(source, tmp_path / "made", "int4", NativeQuantizer(cache_folder() / "kernels"))
    model = load(backend, tmp_path / "made", config)
    embedding = model._weights["transformer.embedding.word_embeddings.weight"]
    assert isinstance(embedding, PackedWeight)
    assert not embedding.data.flags.owndata
    assert np.isfinite(model.forward(IDS)).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_rounded_weights_of_chatglm_answer(backend, tmp_path, bits):
    write_official_folder(tmp_path / "official", bits)
    config = small_config().evolve(quantization_bit=bits)
    native = load(backend, tmp_path / "official", config)
    assert isinstance(native, NativeModel)
    reference = load(NumpyBackend(), tmp_path / "official", config)
    expected = reference.forward(IDS)
    assert np.sqrt(np.mean((native.forward(IDS) - expected) ** 2) / np.var(expected)) < 0.05
    for name, array in native.parameters().items():
        np.testing.assert_array_equal(array, reference.parameters()[name])


def test_the_stock_operators_take_what_the_levels_stand_for(backend, plain, tmp_path):
    quantize_folder(plain, tmp_path / "made")
    stock = load(backend, tmp_path / "made", kernels="stock")
    expected = load(NumpyBackend(), tmp_path / "made").forward(IDS)
    np.testing.assert_allclose(stock.forward(IDS), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend_name", ["native", "numpy"])
def test_another_scheme_is_refused(backend, plain, tmp_path, backend_name):
    quantize_folder(plain, tmp_path / "made", "int4")
    chosen = backend if backend_name == "native" else NumpyBackend()
    load(chosen, tmp_path / "made", quant="int4-g32")
    with pytest.raises(ConfigError, match="int4-g32, or nothing"):
        load(chosen, tmp_path / "made", quant="int8")


PROGRAM = """
import sys
from pathlib import Path
from glm3.adapters.memory.numpy_quantizer import NumpyQuantizer
from support.rounded_folders import quantize_folder
class Slow(NumpyQuantizer):
    count = 0
    def quantize(self, *weight):
        Slow.count += 1
        if Slow.count == 4:
            print("in the middle", flush=True)
            sys.stdin.read()
        return super().quantize(*weight)
quantize_folder(Path(sys.argv[1]), Path(sys.argv[2]), "int4", Slow())
"""


def test_a_killed_writer_leaves_nothing_that_looks_whole(plain, tmp_path):
    target = tmp_path / "made"
    arguments = [sys.executable, "-c", PROGRAM, str(plain), str(target)]
    with subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY / "tests",
        bufsize=1,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert not target.exists()
    assert list(tmp_path.iterdir())  # what it left is no model folder, and the next writer removes it
    quantize_folder(plain, target)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    remove_leftovers(target)


@pytest.mark.slow
def test_the_command_and_a_chat_with_what_it_wrote(tmp_path):
    """The embedded model answers from the folder as it does when it is rounded at load."""
    kernel_build()
    made = glm3("quantize", "--quant", "int4", "-o", str(tmp_path / "made"), "-q")
    assert made.returncode == 0, made.stderr
    assert "4.50 bits a weight" in made.stdout
    assert "dense_4h_to_h" in made.stdout
    prompt = ("--greedy", "-p", "类型#上衣*材质#牛仔布", "--max-new-tokens", "24")
    stored = glm3("chat", "-m", str(tmp_path / "made"), *prompt)
    rounded = glm3("chat", "--quant", "int4", *prompt)
    assert stored.returncode == 0, stored.stderr
    assert stored.stdout == rounded.stdout != ""
    refused = glm3("quantize", "-m", str(tmp_path / "made"), "-o", str(tmp_path / "twice"))
    assert refused.returncode != 0
    assert "rounded again" in refused.stderr

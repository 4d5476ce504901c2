"""Adapters beside rounded weights: the same numbers as beside what the levels stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from glm3.adapters.mindspore.backend import MindSporeBackend
from glm3.domain.errors import InvalidInputError
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.ports.training import MicroBatch
from glm3.domain.quantization.rounded_checkpoint import rounded_checkpoint
from glm3.domain.training.lora import LoRAConfig
from glm3.domain.training.prefix import PrefixConfig
from glm3.entrypoints.paths import cache_folder
from support.models import mindspore_model
from support.rounded_folders import (
    STORE,
    quantize_folder,
    small_config,
    write_official_folder,
    write_small_folder,
)
from support.trainers import begin

pytestmark = pytest.mark.slow

EVERYWHERE = LoRAConfig(rank=3, alpha=6, target_modules="*")
IDS = np.random.default_rng(0).integers(0, 48, (2, 13))


@pytest.fixture(params=["int4-g32", "int4-g32-asym", "int8", "official"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "official":
        write_official_folder(tmp_path / "rounded", 4)
    else:
        quantize_folder(write_small_folder(tmp_path / "plain"), tmp_path / "rounded", request.param)
    return tmp_path / "rounded"


def both(folder: Path, kernels: str):
    """Return the model that holds levels, and the one of the numbers that they stand for."""
    backend, config = MindSporeBackend(cache_folder() / "kernels"), evolve(small_config(), quantization_bit=4)
    with STORE.open(folder) as reader:
        rounded = rounded_checkpoint(reader, 4)
        assert rounded is not None
        numbers = {name: np.asarray(rounded.read(name), np.float32) for name in rounded.tensors}
        held = backend.load(config, rounded.source, LoadOptions(kernels=kernels, adaptable=True))
    return held, mindspore_model(config, numbers, kernels=kernels)


def trained(model, steps: int = 3) -> list[float]:
    batch = MicroBatch(IDS[:, :-1].astype(np.int32), IDS[:, 1:].astype(np.int32))
    trainer = begin(model)
    return [trainer.step([batch], 1e-2).loss for _ in range(steps)]


def test_an_adapter_learns_the_same(folder):
    assert_learns_the_same(folder, "cpu")


def test_an_adapter_learns_the_same_with_the_stock_operators(tmp_path):
    folder = tmp_path / "rounded"
    quantize_folder(write_small_folder(tmp_path / "plain"), folder, "int4-g32-asym")
    assert_learns_the_same(folder, "stock")


def assert_learns_the_same(folder, kernels):
    held, plain = both(folder, kernels)
    np.testing.assert_allclose(held.forward(IDS), plain.forward(IDS), rtol=0, atol=2e-5)
    losses = []
    for model in (held, plain):
        model.add_lora(EVERYWHERE, seed=5)
        losses.append(trained(model))
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    expected = plain.adapter_parameters()
    for name, array in held.adapter_parameters().items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=2e-4, err_msg=name)
    cached = held.extend(held.new_cache(1, 13), [0], [IDS[0].tolist()])
    np.testing.assert_allclose(cached[0], held.forward(IDS)[0, -1], rtol=0, atol=1e-4)


def test_a_prefix_learns_the_same(folder):
    losses = []
    for model in both(folder, "cpu"):
        model.add_prefix(PrefixConfig(length=3), seed=5)
        losses.append(trained(model))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_the_weights_do_not_move_and_take_no_adapter_in(folder):
    held, plain = both(folder, "cpu")
    with pytest.raises(InvalidInputError, match="rounded weights cannot be trained"):
        begin(held)
    held.add_lora(EVERYWHERE)
    trained(held)
    with pytest.raises(InvalidInputError, match="folded into rounded weights"):
        held.merge_lora()
    expected = plain.parameters()
    for name, array in held.parameters().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)

"""Adapters beside rounded weights: the same numbers as beside what the levels stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from glm3.adapters.mindspore.backend import MindSporeBackend
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
from support.trainers import assert_bits_equal, begin

IDS = np.random.default_rng(0).integers(0, 48, (2, 13))


@pytest.fixture(params=["int4-g32-asym", "int8", "official"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "official":
        write_official_folder(tmp_path / "rounded", 4)
    else:
        quantize_folder(write_small_folder(tmp_path / "plain"), tmp_path / "rounded", request.param)
    return tmp_path / "rounded"


def both(folder: Path):
    """Return the model that the folder gives, and the one of the numbers that its levels stand for."""
    backend = MindSporeBackend(cache_folder() / "kernels")
    config = evolve(small_config(), quantization_bit=4)
    with STORE.open(folder) as reader:
        rounded = rounded_checkpoint(reader, 4)
        assert rounded is not None
        numbers = {name: np.asarray(rounded.read(name), np.float32) for name in rounded.tensors}
        held = backend.load(config, reader, LoadOptions(kernels="cpu", adaptable=True))
    return held, mindspore_model(config, numbers, kernels="cpu")


def trained(model) -> list[float]:
    batch = MicroBatch(IDS[:, :-1].astype(np.int32), IDS[:, 1:].astype(np.int32))
    trainer = begin(model)
    return [trainer.step([batch], 1e-2).loss for _ in range(3)]


def test_an_adapter_learns_the_same_and_the_weights_do_not_move(folder):
    losses = []
    held, plain = both(folder)
    before = plain.parameters()
    for model in (held, plain):
        model.add_lora(LoRAConfig(rank=3, alpha=6, target_modules="*"), seed=5)
        losses.append(trained(model))
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]
    assert_bits_equal(held.adapter_parameters(), plain.adapter_parameters())
    assert_bits_equal(held.parameters(), before)


def test_a_prefix_learns_the_same(folder):
    losses = []
    for model in both(folder):
        model.add_prefix(PrefixConfig(length=3), seed=5)
        losses.append(trained(model))
    assert losses[0] == losses[1]

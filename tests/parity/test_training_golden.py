"""Three AdamW steps against the official torch code, float32, over every kernel set."""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.domain.ports.training import MicroBatch
from glm3.domain.training.options import TrainOptions
from support.models import (
    GOLDEN_MODELS,
    KERNEL_SETS,
    golden_arrays,
    golden_config,
    golden_parameters,
    mindspore_model,
)

STEPS = 3
LEARNING_RATE = 1e-3
OPTIONS = TrainOptions(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, max_grad_norm=1.0)


def golden_batch(golden):
    """The reference shifts labels inside; here a target stands at the position before its token."""
    labels = golden["labels"]
    targets = np.full_like(labels, -100)
    targets[:, :-1] = labels[:, 1:]
    return MicroBatch(golden["input_ids"].astype(np.int32), targets.astype(np.int32))


@pytest.fixture(scope="module", params=GOLDEN_MODELS)
def golden_name(request):
    return request.param


@pytest.fixture(scope="module")
def golden(golden_name):
    return golden_arrays(golden_name)


@pytest.fixture(scope="module", params=KERNEL_SETS)
def build(request, golden_name):
    config, parameters = golden_config(golden_name), golden_parameters(golden_name)
    return lambda: mindspore_model(config, parameters, kernels=request.param)


@pytest.fixture(scope="module")
def trained(build, golden):
    trainer = build().trainer(OPTIONS, SingleProcessCommunicator())
    reports = [trainer.step([golden_batch(golden)], LEARNING_RATE) for _ in range(STEPS)]
    return reports, trainer.parameters()


def test_losses(trained, golden):
    losses = [report.loss for report in trained[0]]
    np.testing.assert_allclose(losses, golden["train_losses"], rtol=1e-5)


def test_gradient_norms(trained, golden):
    norms = [report.grad_norm for report in trained[0]]
    np.testing.assert_allclose(norms, golden["train_grad_norms"], rtol=5e-5)


def test_weights_after_three_steps(trained, golden):
    """Where the first gradient is a thousandth of its tensor's largest: below, AdamW amplifies rounding."""
    _, parameters = trained
    for name, array in parameters.items():
        gradient = np.abs(golden[f"grad:{name}"])
        clear = gradient > gradient.max() / 1000
        error = np.abs(array - golden[f"after3:{name}"])[clear].max()
        assert error < 1e-5, f"{name}: {error}"


def test_first_gradients(build, golden):
    """Read off the first moments: after one unclipped step they are a tenth of the gradients."""
    trainer = build().trainer(TrainOptions(beta1=0.9, max_grad_norm=None), SingleProcessCommunicator())
    trainer.step([golden_batch(golden)], LEARNING_RATE)
    state = trainer.state()
    for name in trainer.parameters():
        expected = golden[f"grad:{name}"]
        error = np.abs(state[f"adam_m.{name}"] / 0.1 - expected).max() / np.abs(expected).max()
        assert error < 1e-5, f"{name}: {error}"

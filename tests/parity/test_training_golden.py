"""Training against the official torch code, float32, over every kernel set and optimizer."""

from __future__ import annotations

import pytest

from glm3.domain.training.options import OptimizerKind
from support.golden_training import Errors, golden_training, training_of
from support.models import GOLDEN_MODELS, KERNEL_SETS

CASES = [(name, OptimizerKind.ADAMW) for name in GOLDEN_MODELS] + [
    ("tiny", kind) for kind in OptimizerKind if kind is not OptimizerKind.ADAMW
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].value}")
def case(request):
    return request.param


@pytest.fixture(params=KERNEL_SETS)
def errors(request, case) -> Errors:
    name, kind = case
    return Errors.between(training_of(name, request.param, kind), golden_training(name, kind))


def test_losses(errors):
    assert errors.loss < 1e-5


def test_gradient_norms(errors):
    assert errors.grad_norm < 5e-5


def test_first_gradients(errors):
    assert errors.gradient < 1e-5


def test_last_weights(errors):
    assert errors.weight < 1e-5

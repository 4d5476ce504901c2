"""What tests of trainers have in common."""

from __future__ import annotations

import numpy as np

from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.domain.training.options import TrainOptions


def begin(model, **options):
    """Begin to train on one rank."""
    return model.trainer(TrainOptions(**options), SingleProcessCommunicator())


def kept(arrays):
    """Return copies that outlive the next step."""
    return {name: np.array(array) for name, array in arrays.items()}


def assert_recomputes_its_dropout(gradients):
    """Recomputing changes no gradient that ``gradients(seed, recompute)`` returns, another seed does."""
    first, other = gradients(3, recompute=False), gradients(4, recompute=False)
    for name, array in gradients(3, recompute=True).items():
        np.testing.assert_allclose(array, first[name], rtol=1e-3, atol=1e-5 * np.abs(array).max())
    assert any(np.abs(other[name] - array).max() > 0.1 * np.abs(array).max() for name, array in first.items())


def assert_bits_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)

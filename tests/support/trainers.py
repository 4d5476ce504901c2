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


def assert_bits_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)

"""The calibration port over numpy: one block of the reference model at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import EMBEDDING, FINAL_NORM, OUTPUT_LAYER
from glm3.domain.ports.calibrator import BlockPass

__all__ = ["NumpyCalibrator"]

FloatArray = NDArray[np.float32]


class NumpyCalibrator:
    """See :class:`glm3.domain.ports.calibrator.Calibrator`."""

    def run_block(
        self,
        config: ModelConfig,
        parameters: Mapping[str, FloatArray],
        states: Sequence[FloatArray],
        *,
        with_moments: bool,
    ) -> BlockPass:
        """Let the states be the embedding of a network of one block, whose ids are their places."""
        table = np.concatenate(states)
        whole = {**parameters, EMBEDDING: table, OUTPUT_LAYER: table}
        if config.post_layer_norm:
            whole[FINAL_NORM] = np.ones(config.hidden_size, np.float32)
        moments: dict[str, FloatArray] = {}

        def add(name: str, inputs: FloatArray) -> None:
            products = inputs.T @ inputs
            if name in moments:
                moments[name] += products
            else:
                moments[name] = products

        network = config.evolve(num_layers=1, padded_vocab_size=len(table))
        block = NumpyModel(network, whole, add if with_moments else None)
        outputs, start = [], 0
        for state in states:
            ids = np.arange(start, start + len(state))
            outputs.append(block.hidden_states(ids[None])[-1][0])
            start += len(state)
        return BlockPass(outputs, moments)

"""Port: run text through one transformer block, and tell what its matrices read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.domain.model_config import ModelConfig

__all__ = ["BlockPass", "Calibrator"]


@frozen(eq=False)
class BlockPass:
    """What came of a pass: hidden states ``(seq, hidden)`` of each sequence, and by each matrix' name the sum
    over all tokens of its inputs' products ``(in, in)``, none if they were not asked for.
    """

    states: list[NDArray[np.float32]]
    moments: Mapping[str, NDArray[np.float32]]


class Calibrator(Protocol):
    """Computes in float32 with plain weights, a block at a time."""

    def run_block(
        self,
        config: ModelConfig,
        parameters: Mapping[str, NDArray[np.float32]],
        states: Sequence[NDArray[np.float32]],
        *,
        with_moments: bool,
    ) -> BlockPass:
        """Run sequences ``(seq, hidden)`` through a block.

        ``parameters`` are the block's, by the names that they have in block 0.
        """
        ...

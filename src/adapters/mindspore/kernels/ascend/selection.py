"""Choose the fused operators for a network: those that are here and take it, and say what others cost."""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms

from glm3.adapters.mindspore.kernels.ascend.kernels import AscendKernels
from glm3.adapters.mindspore.kernels.ascend.network_rules import verify_network
from glm3.adapters.mindspore.kernels.ascend.operators import present_operators
from glm3.adapters.mindspore.kernels.ascend.reference import OperatorSettings
from glm3.adapters.mindspore.kernels.ascend.versions import check_pair, usable_operators
from glm3.adapters.mindspore.kernels.base import HeadLayout
from glm3.domain.model_config import ModelConfig
from glm3.domain.tensors import DType

__all__ = ["ascend_kernels"]


def ascend_kernels(
    config: ModelConfig,
    dtype: DType,
    *,
    fused: bool = True,
    cann: str | None = None,
    warn: Callable[[str], None],
) -> AscendKernels:
    """Make the kernel set of a network; ``warn`` hears once what stock operators have to replace.

    Raises:
        BackendError: MindSpore and CANN do not match.
        InvalidInputError: an operator does not take the network's sizes; it names the setting to change.
    """
    usable: frozenset[str] = frozenset()
    if fused:
        check_pair(ms.__version__, cann)
        usable, reasons = usable_operators(ms.__version__, cann, present_operators())
        if reasons:
            warn("stock operators replace fused ones, at a fraction of their speed: " + "; ".join(reasons))
        verify_network(config, dtype, usable)
    return AscendKernels(OperatorSettings(HeadLayout.of(config), config.layernorm_epsilon), usable, dtype)

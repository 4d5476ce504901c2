"""How one optimizer step computes."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

from glm3.domain.errors import InvalidInputError
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.tensors import DType

__all__ = ["OptimizerKind", "TrainOptions", "decays"]


class OptimizerKind(StrEnum):
    """``adamw`` corrects the bias of its moments; the other, MindFormers', does not. Moments are float32."""

    ADAMW = "adamw"
    FP32_STATE_ADAM_WEIGHT_DECAY = "fp32_state_adam_weight_decay"

    @property
    def bias_correction(self) -> bool:
        return self is OptimizerKind.ADAMW


@frozen(kw_only=True)
class TrainOptions:
    """Numerics of a training step.

    ``loss_scale`` None trains without scaling; otherwise it is the dynamic scale's start, halved (by
    ``scale_factor``) on overflow down to 1 and doubled after ``scale_window`` good steps.
    ``max_grad_norm`` None does not clip. ``master_weights`` keeps a float32 copy of parameters that are
    stored narrower, so that small updates are not rounded away. ``recompute`` drops activations and computes
    them again. ``compute_dtype`` is for accelerators: a CPU computes in float32. ``seed`` draws dropout.
    ``cut`` says how the ranks of a job share the work; one rank needs none.
    """

    optimizer: OptimizerKind = OptimizerKind.ADAMW
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    max_grad_norm: float | None = 1.0
    loss_scale: float | None = None
    scale_factor: float = 2.0
    scale_window: int = 1000
    master_weights: bool = False
    recompute: bool = False
    compute_dtype: DType = DType.FLOAT32
    seed: int = 0
    cut: NetworkCut | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInputError(
                    "invalid value", field=name, expected="from 0 up to, not including, 1"
                )
        for name in ("eps", "scale_window", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidInputError("invalid value", field=name, expected="above 0", found=value)
        for name, lowest in (("loss_scale", 1), ("scale_factor", 1), ("weight_decay", 0)):
            value = getattr(self, name)
            if value is not None and not value >= lowest:
                raise InvalidInputError(
                    "invalid value", field=name, expected=f"{lowest} or more", found=value
                )


def decays(name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether weight decay applies: to matrices, not to norms and biases."""
    return len(shape) > 1 and not name.endswith(".bias")

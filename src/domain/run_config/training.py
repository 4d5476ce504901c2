"""The sections of the training loop: runner, wrapper, schedule, optimizer, metric, callbacks."""

from __future__ import annotations

from attrs import frozen

from glm3.domain.coercion import as_bool, as_text, optional
from glm3.domain.run_config.schema import key, section
from glm3.domain.run_config.values import (
    at_least,
    choice,
    integer_at_least,
    integer_or_off,
    positive_number,
    probability,
)

__all__ = [
    "CallbackConfig",
    "LossScaleConfig",
    "LrScheduleConfig",
    "MetricConfig",
    "OptimizerConfig",
    "RunnerConfig",
    "RunnerWrapperConfig",
]


@frozen(kw_only=True)
class RunnerConfig:
    """How long, and how many rows at a time."""

    epochs: int = key(1, integer_at_least(1), "times over the data")
    batch_size: int = key(8, integer_at_least(1), "rows per card and step")
    sink_mode: bool = key(True, as_bool, "let the device run sink_size steps on its own")
    sink_size: int = key(-1, integer_or_off, "steps between two reports with sink_mode; -1 is a whole epoch")
    gradient_accumulation_steps: int = key(1, integer_at_least(1), "batches summed before an update")
    initial_epoch: int = key(0, integer_at_least(0), "epochs already done")
    initial_step: int = key(0, integer_at_least(0), "steps already done")


@frozen(kw_only=True)
class LossScaleConfig:
    """Loss scaling for float16."""

    type: str = key(
        "DynamicLossScaleUpdateCell",
        choice("DynamicLossScaleUpdateCell", "FixedLossScaleUpdateCell"),
        "halve on overflow and grow again, or keep",
    )
    loss_scale_value: float = key(65536.0, at_least(1), "scale at the start")
    scale_factor: float = key(2.0, positive_number, "factor of a change")
    scale_window: int = key(1000, integer_at_least(1), "steps without overflow before it grows")


@frozen(kw_only=True)
class RunnerWrapperConfig:
    """One training step."""

    type: str = key("MFTrainOneStepCell", choice("MFTrainOneStepCell"), "step class")
    scale_sense: LossScaleConfig = section(LossScaleConfig, "loss scaling")
    use_clip_grad: bool = key(False, as_bool, "clip gradients by their global norm")
    max_grad_norm: float = key(1.0, positive_number, "norm to clip to")


@frozen(kw_only=True)
class LrScheduleConfig:
    """The learning rate over the steps."""

    type: str = key(
        "constant_with_warmup",
        choice("constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"),
        "curve after warm-up",
    )
    learning_rate: float | None = key(None, optional(positive_number), "its top; wins over the optimizer's")
    lr_end: float = key(1e-7, at_least(0), "its end")
    warmup_steps: int = key(0, integer_at_least(0), "steps of linear rise")
    warmup_ratio: float | None = key(None, optional(probability), "the same as a share of total_steps")
    warmup_epochs: int | None = key(None, optional(integer_at_least(0)), "the same in epochs")
    warmup_lr_init: float = key(0.0, at_least(0), "learning rate of the first step of the rise")
    total_steps: int = key(-1, integer_or_off, "length of the curve; -1 is epochs x data size")
    num_cycles: float = key(0.5, positive_number, "waves of the cosine")
    power: float = key(1.0, positive_number, "exponent of the polynomial")


@frozen(kw_only=True)
class OptimizerConfig:
    """The update rule."""

    type: str = key(
        "FP32StateAdamWeightDecay",
        choice("FP32StateAdamWeightDecay", "FusedAdamWeightDecay", "AdamW"),
        "AdamW corrects the bias of its moments, the others do not",
    )
    beta1: float = key(0.9, probability, "decay of the first moment")
    beta2: float = key(0.999, probability, "decay of the second moment")
    eps: float = key(1e-6, positive_number, "added to the root of the second moment")
    weight_decay: float = key(0.0, at_least(0), "pull towards 0, of matrices only")
    learning_rate: float | None = key(None, optional(positive_number), "used where lr_schedule has none")


@frozen(kw_only=True)
class MetricConfig:
    """How an evaluation is scored."""

    type: str = key(
        "ADGENMetric", choice("ADGENMetric", "PerplexityMetric"), "generate and compare, or perplexity"
    )


@frozen(kw_only=True)
class CallbackConfig:
    """Something done while training; ``type`` decides which of the other keys count."""

    type: str = key(
        "MFLossMonitor",
        choice(
            "MFLossMonitor",
            "CheckpointMonitor",
            "ObsMonitor",
            "ProfileMonitor",
            "EvalCallBack",
            aliases={"CheckpointMointor": "CheckpointMonitor"},
        ),
        "loss log, checkpoint writer, upload, profiler, evaluation",
    )
    prefix: str = key("CKP", as_text, "start of the checkpoints' names")
    directory: str | None = key(None, optional(as_text), "where checkpoints go; output_dir if not given")
    save_checkpoint_steps: int = key(1, integer_at_least(1), "steps between two checkpoints")
    keep_checkpoint_max: int = key(5, integer_at_least(1), "checkpoints kept")
    integrated_save: bool = key(True, as_bool, "join the slices of all ranks")
    async_save: bool = key(False, as_bool, "write while training goes on")
    save_network_params: bool = key(True, as_bool, "also write the weights alone")
    save_trainable_params: bool = key(False, as_bool, "also write the trained weights alone")
    keep_last: bool = key(True, as_bool, "upload only the last checkpoint")

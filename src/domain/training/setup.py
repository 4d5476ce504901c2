"""From the keys of a run to the numbers of its steps."""

from __future__ import annotations

from glm3.domain.errors import ConfigError
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.model_config import ModelConfig
from glm3.domain.run_config import RunConfig
from glm3.domain.run_config.model import PetConfig
from glm3.domain.run_config.parallel import DATA_PARALLEL_MODES
from glm3.domain.training.adapters import AdapterConfig
from glm3.domain.training.batch_plan import BatchPlan
from glm3.domain.training.lora import LoRAConfig
from glm3.domain.training.options import OptimizerKind, TrainOptions
from glm3.domain.training.prefix import PrefixConfig
from glm3.domain.training.schedules import LearningRateSchedule

__all__ = ["adapter_config", "learning_rate_schedule", "network_cut", "train_options"]


def train_options(config: RunConfig) -> TrainOptions:
    """Return the numerics of a step.

    ``AdamW`` keeps float32 copies of narrower parameters; MindFormers' optimizers keep float32 moments and
    round each update into the parameter. A fixed loss scale is a dynamic one whose factor is 1.
    """
    wrapper, optimizer = config.runner_wrapper, config.optimizer
    scale = wrapper.scale_sense
    ours = optimizer.type == "AdamW"
    fixed = scale.type == "FixedLossScaleUpdateCell"
    return TrainOptions(
        optimizer=OptimizerKind.ADAMW if ours else OptimizerKind.FP32_STATE_ADAM_WEIGHT_DECAY,
        beta1=optimizer.beta1,
        beta2=optimizer.beta2,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=wrapper.max_grad_norm if wrapper.use_clip_grad else None,
        loss_scale=scale.loss_scale_value,
        scale_factor=1.0 if fixed else scale.scale_factor,
        scale_window=scale.scale_window,
        master_weights=ours,
        recompute=config.recompute_config.recompute,
        compute_dtype=config.model.model_config.compute_dtype,
        seed=config.seed,
    )


def adapter_config(config: RunConfig) -> AdapterConfig | None:
    """Return the adapter that a run trains, or None if it trains the network.

    Raises:
        ConfigError: the adapter's keys are out of range, or ask for what is not there.
    """
    keys, place = config.model.pet_config, "model.model_config.pet_config"
    if keys is None:
        return None
    if keys.pet_type == "ptuning2":
        return _prefix_config(keys, config.model.model_config, place)
    for name in ("exclude_layers", "freeze_include", "freeze_exclude"):
        if getattr(keys, name):
            raise ConfigError(
                "not available",
                field=f"{place}.{name}",
                expected="nothing",
                found=list(getattr(keys, name)),
                hint="target_modules alone says which layers are adapted; the network is frozen",
            )
    return LoRAConfig(
        rank=keys.lora_rank,
        alpha=keys.lora_alpha,
        dropout=keys.lora_dropout,
        target_modules=keys.target_modules or "",
    )


def _prefix_config(keys: PetConfig, network: ModelConfig, place: str) -> PrefixConfig:
    length = keys.pre_seq_len or network.pre_seq_len
    if length is None:
        raise ConfigError(
            "the prefix has no length",
            field=f"{place}.pre_seq_len",
            expected="how many keys and values stand in front of each layer's own, 128 for example",
        )
    return PrefixConfig(
        length=length,
        projection=keys.prefix_projection or network.prefix_projection,
        projection_size=keys.projection_dim,
        dropout=keys.dropout_prob,
    )


def network_cut(config: RunConfig, world_size: int) -> NetworkCut | None:
    """Return how ``world_size`` ranks share a run's work, None where there is nothing to share.

    In MindSpore's data parallel modes (0 and 3) every rank has a share of the rows, and the file's numbers of
    ways are not looked at.
    """
    if not config.use_parallel or world_size == 1:
        return None
    parallel, ways = config.parallel, config.parallel_config
    if parallel.parallel_mode in DATA_PARALLEL_MODES:
        return NetworkCut(data_parallel=world_size, optimizer_parallel=parallel.enable_parallel_optimizer)
    return NetworkCut(
        data_parallel=ways.data_parallel,
        model_parallel=ways.model_parallel,
        pipeline_stage=ways.pipeline_stage,
        optimizer_parallel=parallel.enable_parallel_optimizer,
        vocab_emb_dp=ways.vocab_emb_dp,
    )


def learning_rate_schedule(
    config: RunConfig, plan: BatchPlan, steps_per_epoch: int, total_steps: int
) -> LearningRateSchedule:
    """Return the learning rate of every step; ``total_steps`` is the run's where the file names no other.

    Raises:
        InvalidInputError: the values contradict each other.
    """
    keys = config.lr_schedule
    peak = keys.learning_rate or config.optimizer.learning_rate or 0.0
    if config.lr_scale:
        peak = peak * plan.global_batch / plan.passes / config.lr_scale_factor
    length = total_steps if keys.total_steps == -1 else keys.total_steps
    warmup = keys.warmup_steps
    if keys.warmup_ratio is not None:
        warmup = int(length * keys.warmup_ratio)
    elif keys.warmup_epochs is not None:
        warmup = keys.warmup_epochs * steps_per_epoch
    return LearningRateSchedule(
        type=keys.type,
        learning_rate=peak,
        total_steps=length,
        lr_end=keys.lr_end,
        warmup_steps=min(warmup, length),
        warmup_lr_init=keys.warmup_lr_init,
        num_cycles=keys.num_cycles,
        power=keys.power,
    )

"""A whole run: everything that a configuration file of ``configs/glm3`` says."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, field, frozen

from glm3.domain.coercion import as_bool, as_text, optional
from glm3.domain.run_config.data import DatasetConfig, DatasetTaskConfig
from glm3.domain.run_config.model import ModelSection, ProcessorConfig, TrainerConfig, read_model
from glm3.domain.run_config.parallel import (
    ContextConfig,
    MoeConfig,
    ParallelConfig,
    ParallelContextConfig,
    RecomputeConfig,
)
from glm3.domain.run_config.schema import Reading, key, many, optional_section, read_record, section, special
from glm3.domain.run_config.training import (
    CallbackConfig,
    LrScheduleConfig,
    MetricConfig,
    OptimizerConfig,
    RunnerConfig,
    RunnerWrapperConfig,
)
from glm3.domain.run_config.tree import Faults, Node, Origin
from glm3.domain.run_config.values import choice, integer_at_least, integer_or_off, probability

__all__ = ["RUN_MODES", "RunConfig", "build_run_config"]

RUN_MODES = ("train", "finetune", "eval", "predict", "export")


def _prompts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError("a text or a list of texts")


@frozen(kw_only=True)
class RunConfig:
    """Every key of a run, validated one by one; :func:`check_for` judges them together, for one run mode.

    ``notices`` are for the user to read once. ``origins`` maps dotted keys to where they were given.
    """

    seed: int = key(0, integer_at_least(0), "seed of everything random")
    run_mode: str = key("train", choice(*RUN_MODES), "what to do")
    output_dir: str = key("./output", as_text, "root of everything written")
    load_checkpoint: str | None = key(
        None, optional(as_text), "weights to start from: a file, a folder of rank_N folders, or a known name"
    )
    src_strategy_path_or_dir: str | None = key(
        None, optional(as_text), "how load_checkpoint is sliced, where it is"
    )
    auto_trans_ckpt: bool = key(False, as_bool, "slice load_checkpoint for this job's ranks")
    only_save_strategy: bool = key(False, as_bool, "compile, write the slicing, stop")
    resume_training: bool = key(False, as_bool, "go on where load_checkpoint stopped")
    remote_save_url: str | None = key(None, optional(as_text), "upload target of ObsMonitor")
    context: ContextConfig = section(ContextConfig, "device and graph")
    model: ModelSection = special(ModelSection(), read_model, "the network")
    trainer: TrainerConfig = section(TrainerConfig, "the task")
    processor: ProcessorConfig = section(ProcessorConfig, "from text to ids")
    train_dataset: DatasetConfig | None = optional_section(DatasetConfig, "rows to train on")
    train_dataset_task: DatasetTaskConfig | None = optional_section(DatasetTaskConfig, "what they are")
    eval_dataset: DatasetConfig | None = optional_section(DatasetConfig, "rows to evaluate on")
    eval_dataset_task: DatasetTaskConfig | None = optional_section(DatasetTaskConfig, "what they are")
    runner_config: RunnerConfig = section(RunnerConfig, "how long, how many rows")
    runner_wrapper: RunnerWrapperConfig = section(RunnerWrapperConfig, "one training step")
    lr_schedule: LrScheduleConfig = section(LrScheduleConfig, "learning rate over the steps")
    layer_scale: bool = key(False, as_bool, "no effect on this network")
    layer_decay: float = key(0.65, probability, "no effect on this network")
    lr_scale: bool = key(False, as_bool, "multiply the learning rate by ranks x batch / lr_scale_factor")
    lr_scale_factor: int = key(256, integer_at_least(1), "divisor of lr_scale")
    optimizer: OptimizerConfig = section(OptimizerConfig, "update rule")
    use_parallel: bool = key(False, as_bool, "use many ranks; without it parallel_config has no effect")
    parallel: ParallelContextConfig = section(ParallelContextConfig, "automatic parallelism")
    parallel_config: ParallelConfig = section(ParallelConfig, "how many ways each axis is cut")
    micro_batch_interleave_num: int = key(
        1, integer_at_least(1), "pieces of a batch that hide model-parallel communication"
    )
    moe_config: MoeConfig = section(MoeConfig, "no effect on this network")
    recompute_config: RecomputeConfig = section(RecomputeConfig, "activations computed again")
    do_eval: bool = key(False, as_bool, "evaluate while training")
    eval_step_interval: int = key(500, integer_or_off, "steps between evaluations; -1 is off")
    eval_epoch_interval: int = key(-1, integer_or_off, "epochs between evaluations; -1 is off")
    metric: tuple[MetricConfig, ...] = many(MetricConfig, "scores of an evaluation")
    callbacks: tuple[CallbackConfig, ...] = many(CallbackConfig, "done while training")
    eval_callbacks: tuple[CallbackConfig, ...] = many(CallbackConfig, "done while evaluating")
    input_data: tuple[str, ...] | None = key(None, optional(_prompts), "prompts of predict")
    predict_batch_size: int = key(1, integer_at_least(1), "prompts answered together")
    save_file: str = key("text_generation_result.txt", as_text, "where predict writes its answers")
    auto_tune: bool = key(False, as_bool, "tune the data pipeline")
    filepath_prefix: str = key("./autotune", as_text, "where the tuning is written")
    autotune_per_step: int = key(10, integer_at_least(1), "steps between two tunings")
    profile: bool = key(False, as_bool, "profile steps")
    profile_start_step: int = key(1, integer_at_least(1), "first of them")
    profile_stop_step: int = key(10, integer_at_least(1), "last of them")
    init_start_profile: bool = key(False, as_bool, "profile the start as well")
    profile_communication: bool = key(False, as_bool, "profile communication")
    profile_memory: bool = key(True, as_bool, "profile memory")
    notices: tuple[str, ...] = ()
    origins: Mapping[str, Origin] = field(factory=dict, eq=False, repr=False)

    def origin_of(self, key: str) -> Origin:
        """Return where a dotted key was given, or its nearest given parent."""
        while key not in self.origins and "." in key:
            key = key.rpartition(".")[0]
        return self.origins.get(key, self.origins.get("", Origin()))


def build_run_config(tree: Node, what: str, faults: Faults | None = None) -> RunConfig:
    """Read a parsed configuration; ``what`` names it in the error, ``faults`` are those already found.

    Raises:
        MultipleFaultsError: every unknown key and invalid value, each with its place.
    """
    reading = Reading(faults=faults or Faults())
    reading.origins[""] = tree.origin
    config = read_record(RunConfig, tree, "", reading)
    reading.faults.raise_if_any(what)
    return evolve(config, notices=_notices(config), origins=reading.origins)


def _notices(config: RunConfig) -> tuple[str, ...]:
    old = [
        f"{name}.data_loader.version"
        for name in ("train_dataset", "eval_dataset")
        if (dataset := getattr(config, name)) is not None and dataset.data_loader.version == 2
    ]
    if not old:
        return ()
    why = "2 is ChatGLM2's layout, which ChatGLM3's tokenizer cannot build; rows are read with version 3"
    return (f"{' and '.join(old)}: {why}",)

"""Judge a run as a whole: what its mode needs, and what contradicts each other."""

from __future__ import annotations

from attrs import frozen

from glm3.domain.errors import InvalidInputError
from glm3.domain.run_config.parallel import DATA_PARALLEL_MODES
from glm3.domain.run_config.run import RUN_MODES, RunConfig
from glm3.domain.run_config.tree import Faults
from glm3.domain.run_config.values import is_placeholder

__all__ = ["check_for", "check_sizes"]

_TRAINING = ("train", "finetune")
_TASK_OF = {"ADGenDataLoader": "KeyWordGenDataset", "ToolAlpacaDataLoader": "MultiTurnDataset"}


def check_for(config: RunConfig, run_mode: str | None = None, *, device_count: int | None = None) -> None:
    """Check everything that can be known before data, weights or devices are touched.

    ``run_mode`` is the configuration's own unless given. ``device_count`` is the number of ranks of the
    job, if known. The lengths' rule is the model card's: the sequence holds prompt, answer and its end.
    With ``only_save_strategy`` a run needs neither data nor weights, whatever its mode.

    Raises:
        MultipleFaultsError: every contradiction and every fill-me-in path that this mode would meet.
        InvalidInputError: there is no such mode.
    """
    mode = run_mode or config.run_mode
    if mode not in RUN_MODES:
        raise InvalidInputError("no such run mode", expected=", ".join(RUN_MODES), found=mode)
    check = _Check(config, Faults())
    place = config.origin_of("").path
    if config.only_save_strategy:
        _check_cut(check, device_count)
        check.faults.raise_if_any(f"{place or 'the configuration'} for its strategy files")
        return
    if mode in _TRAINING:
        _check_training(check)
        if config.use_parallel:
            _check_ranks(check, device_count)
        elif device_count is not None and device_count > 1:
            check.fault(
                "use_parallel",
                "each rank would train for itself, into the same files",
                f"True: the job has {device_count} ranks",
                False,
                f"add use_parallel=True parallel_config.data_parallel={device_count}",
            )
    elif mode == "eval":
        _check_dataset(check, "eval_dataset")
    else:
        check.not_placeholder("model.model_config.checkpoint_name_or_path")
        _check_lengths_of_answers(check)
    check.not_placeholder("load_checkpoint")
    if config.context.save_graphs:
        check.not_placeholder("context.save_graphs_path")
    check.faults.raise_if_any(f"{place or 'the configuration'} for run mode {mode}")


def check_sizes(config: RunConfig) -> None:
    """Check what the memory of a training follows from, before its files are named.

    Raises:
        MultipleFaultsError: lengths, adapter and ranks contradict each other, as :func:`check_for` says.
    """
    if config.run_mode not in _TRAINING or config.only_save_strategy:
        return
    check = _Check(config, Faults())
    _check_sequence_length(check)
    _check_adapter(check)
    if config.use_parallel:
        _check_ranks(check, None)
    place = config.origin_of("").path
    check.faults.raise_if_any(f"{place or 'the configuration'} for run mode {config.run_mode}")


@frozen
class _Check:
    config: RunConfig
    faults: Faults

    def fault(
        self, key: str, message: str, expected: object = None, found: object = None, hint: str | None = None
    ) -> None:
        origin = self.config.origin_of(key)
        self.faults.add(message, origin=origin, field=key, expected=expected, found=found, hint=hint)

    def not_placeholder(self, key: str) -> None:
        value: object = self.config
        for name in key.split("."):
            value = getattr(value, name)
        if is_placeholder(value):
            self.fault(
                key,
                "still the placeholder",
                found=value,
                hint=f"fill it in, or add {key}=PATH to the command",
            )

    def equal(self, key: str, value: object, expected: object, why: str, hint: str | None = None) -> None:
        if value != expected:
            self.fault(key, "contradiction", f"{expected} ({why})", value, hint)


def _check_training(check: _Check) -> None:
    config = check.config
    _check_dataset(check, "train_dataset")
    if config.do_eval:
        _check_dataset(check, "eval_dataset")
        if config.eval_step_interval == -1 and config.eval_epoch_interval == -1:
            check.fault("do_eval", "no interval", "eval_step_interval or eval_epoch_interval", "both are -1")
    _check_sequence_length(check)
    if config.resume_training and config.load_checkpoint is None:
        check.fault("resume_training", "nothing to resume from", "load_checkpoint", "none")
    schedule = config.lr_schedule
    top = schedule.learning_rate or config.optimizer.learning_rate
    if top is None:
        check.fault("lr_schedule.learning_rate", "missing", "a number above 0")
    elif schedule.type == "polynomial" and schedule.lr_end >= top:
        check.fault("lr_schedule.lr_end", "contradiction", f"below learning_rate = {top:g}", schedule.lr_end)
    if schedule.warmup_steps > schedule.total_steps != -1:
        expected = f"at most total_steps = {schedule.total_steps}"
        check.fault("lr_schedule.warmup_steps", "contradiction", expected, schedule.warmup_steps)
    if config.profile and config.profile_stop_step < config.profile_start_step:
        expected = f"at least profile_start_step = {config.profile_start_step}"
        check.fault("profile_stop_step", "contradiction", expected, config.profile_stop_step)
    _check_adapter(check)


def _check_adapter(check: _Check) -> None:
    network, keys = check.config.model.model_config, check.config.model.pet_config
    if keys is None:
        return
    place = "model.model_config.pet_config"
    if keys.pet_type == "lora" and keys.target_modules is None:
        expected = "a regular expression, for example .*query_key_value*"
        check.fault(f"{place}.target_modules", "missing", expected)
    if keys.pet_type == "ptuning2" and keys.pre_seq_len is None and network.pre_seq_len is None:
        check.fault(f"{place}.pre_seq_len", "missing", "the length of the prefix, 128 for example")


def _check_dataset(check: _Check, name: str) -> None:
    dataset = getattr(check.config, name)
    if dataset is None:
        check.fault(name, "missing", "a section with data_loader.dataset_dir")
        return
    if dataset.data_loader.dataset_dir is None:
        check.fault(f"{name}.data_loader.dataset_dir", "missing", "a file of rows")
    check.not_placeholder(f"{name}.data_loader.dataset_dir")
    check.not_placeholder(f"{name}.tokenizer.vocab_file")
    columns = dataset.data_loader.origin_columns
    if dataset.data_loader.type == "ADGenDataLoader" and len(columns) != 2:
        check.fault(
            f"{name}.data_loader.origin_columns",
            "contradiction",
            "two columns: prompt, answer",
            list(columns),
        )
    task = getattr(check.config, f"{name}_task")
    if task is not None:
        loader = dataset.data_loader.type
        check.equal(f"{name}_task.type", task.type, _TASK_OF[loader], f"the task of {loader}")


def _check_sequence_length(check: _Check) -> None:
    config = check.config
    dataset, seq_length = config.train_dataset, config.model.model_config.seq_length
    if dataset is None:
        return
    key = "model.model_config.seq_length"
    if dataset.data_loader.type == "ADGenDataLoader":
        source, target = dataset.max_source_length, dataset.max_target_length
        why = f"max_source_length {source} + max_target_length {target} + 1"
        hint = "set one of the three so that they agree"
        check.equal(key, seq_length, source + target + 1, why, hint)
    else:
        check.equal(key, seq_length, dataset.max_seq_length, "train_dataset.max_seq_length")


def _check_cut(check: _Check, device_count: int | None) -> None:
    """Check what decides how the parameters are cut."""
    if check.config.use_parallel:
        _check_ranks(check, device_count)
    else:
        check.fault("use_parallel", "nothing is cut in this run", True, False, "add use_parallel=True")
    _check_adapter(check)


def _check_ranks(check: _Check, device_count: int | None) -> None:
    config, cut = check.config, check.config.parallel_config
    copies = config.parallel.parallel_mode in DATA_PARALLEL_MODES
    if device_count is not None and cut.ranks != device_count and not copies:
        check.fault(
            "parallel_config",
            "The parallel config data_parallel * model_parallel * pipeline_stage should be equal to "
            f"device_num, but get dp:{cut.data_parallel}, mp:{cut.model_parallel}, pp:{cut.pipeline_stage}, "
            f"device_num:{device_count}",
            device_count,
            cut.ranks,
            f"start a job of so many ranks: glm3 launch --workers {cut.ranks} finetune ...; "
            "or train in this process alone with use_parallel=False"
            if device_count == 1
            else "change parallel_config, or the number of ranks that are started",
        )
    layers = config.model.model_config.num_layers
    if cut.pipeline_stage > layers:
        check.fault(
            "parallel_config.pipeline_stage", "contradiction", f"at most {layers} layers", cut.pipeline_stage
        )
    if cut.pipeline_stage > cut.micro_batch_num:
        expected = f"at least pipeline_stage = {cut.pipeline_stage}"
        check.fault("parallel_config.micro_batch_num", "contradiction", expected, cut.micro_batch_num)
    if config.model.pet_config is not None and config.parallel.strategy_ckpt_config.only_trainable_params:
        check.equal(
            "parallel.strategy_ckpt_config.only_trainable_params",
            True,
            False,
            "a merge needs the slicing of the frozen parameters too",
        )


def _check_lengths_of_answers(check: _Check) -> None:
    model = check.config.model.model_config
    limit = model.max_length
    if limit is not None and limit > model.seq_length:
        expected = f"at most seq_length = {model.seq_length}"
        check.fault("model.model_config.max_length", "contradiction", expected, limit)

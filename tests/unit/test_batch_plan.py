from pathlib import Path

import pytest

from glm3.domain.errors import MultipleFaultsError
from glm3.domain.training.batch_plan import BatchPlan
from glm3.domain.training.setup import learning_rate_schedule, train_options
from support.finetune import run_config


def batch(world_size: int = 1, **changes: object) -> BatchPlan:
    return BatchPlan.of(run_config(Path("output"), **changes), world_size)


@pytest.mark.parametrize(
    ("changes", "world_size", "global_batch"),
    [
        ({}, 1, 4),
        ({"runner_config__gradient_accumulation_steps": 3}, 1, 12),
        ({"parallel_config": {"data_parallel": 8}}, 1, 4),  # use_parallel False leaves it out
        ({"use_parallel": True, "parallel": {"parallel_mode": 0}}, 8, 32),
        (
            {"use_parallel": True, "parallel_config": {"data_parallel": 8}, "micro_batch_interleave_num": 2},
            8,
            64,
        ),
        (
            {
                "use_parallel": True,
                "parallel_config": {"data_parallel": 2, "pipeline_stage": 4, "micro_batch_num": 4},
                "runner_config__gradient_accumulation_steps": 3,
            },
            8,
            32,
        ),
    ],
)
def test_the_global_batch_is_mindformers(changes: dict, world_size: int, global_batch: int) -> None:
    assert batch(world_size, **changes).global_batch == global_batch


@pytest.mark.parametrize(
    ("sink_mode", "sink_size", "expected"), [(True, 4, 4), (True, -1, 30), (False, 4, 30)]
)
def test_the_sink_is_an_epoch_unless_it_is_set(sink_mode: bool, sink_size: int, expected: int) -> None:
    config = run_config(
        Path("output"), runner_config__sink_mode=sink_mode, runner_config__sink_size=sink_size
    )
    assert BatchPlan.sink_size(config, 30) == expected


def test_a_sink_of_nothing_is_refused() -> None:
    with pytest.raises(MultipleFaultsError, match="sink_size"):
        run_config(Path("output"), runner_config__sink_size=0)


def rates(*, steps: int = 100, **changes: object) -> list[float]:
    config = run_config(Path("output"), **changes)
    schedule = learning_rate_schedule(config, BatchPlan.of(config), 10, steps)
    return [schedule(step) for step in range(steps + 1)]


def test_the_schedule_ends_with_the_run_unless_the_file_says_so() -> None:
    assert rates()[100] == pytest.approx(0.001)
    assert rates(lr_schedule__total_steps=50)[50] == pytest.approx(0.001)
    assert rates()[50] == pytest.approx((0.05 + 0.001) / 2)


def test_warm_up_is_given_in_steps_as_a_share_or_in_epochs() -> None:
    by_steps = rates(lr_schedule__warmup_steps=20)
    assert by_steps[0] == 0
    assert by_steps[20] == pytest.approx(0.05)
    assert rates(lr_schedule__warmup_ratio=0.2) == by_steps
    assert rates(lr_schedule__warmup_epochs=2) == by_steps


def test_a_scaled_rate_grows_with_the_rows_of_a_pass_over_all_ranks() -> None:
    assert max(rates(lr_scale=True, lr_scale_factor=2)) == pytest.approx(0.1)


def test_the_optimizers_rate_counts_where_the_schedule_has_none() -> None:
    config = run_config(Path("output"), lr_schedule={"type": "linear"}, optimizer__learning_rate=0.3)
    assert learning_rate_schedule(config, BatchPlan.of(config), 10, 100)(0) == pytest.approx(0.3)


def test_optimizers_are_told_apart() -> None:
    for name, corrects in (
        ("AdamW", True),
        ("FP32StateAdamWeightDecay", False),
        ("FusedAdamWeightDecay", False),
    ):
        options = train_options(run_config(Path("output"), optimizer__type=name))
        assert options.optimizer.bias_correction is corrects
        assert options.master_weights is corrects


def test_clipping_and_a_fixed_scale_are_as_the_file_says() -> None:
    scale = {"type": "FixedLossScaleUpdateCell", "loss_scale_value": 8, "scale_factor": 2}
    options = train_options(
        run_config(Path("output"), runner_wrapper={"use_clip_grad": False, "scale_sense": scale})
    )
    assert (options.max_grad_norm, options.loss_scale, options.scale_factor) == (None, 8, 1)
    assert train_options(run_config(Path("output"))).max_grad_norm == 1.0

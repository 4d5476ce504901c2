from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.training.checkpoint_names import (
    CheckpointName,
    free_run,
    in_order,
    latest,
    prefix_of,
    sink_position,
)

PREFIXES = st.from_regex(r"[a-z0-9_-]{1,12}_rank_[0-9]{1,2}(_[1-9])?", fullmatch=True)


@given(PREFIXES, st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_name_reads_back(prefix: str, epoch: int, step: int) -> None:
    name = CheckpointName(prefix, epoch, step)
    assert CheckpointName.parse(name.file_name) == name


def test_names_are_those_of_the_model_card() -> None:
    """With a sink of one step the epoch counts steps."""
    assert CheckpointName("glm3-6b_rank_0", *sink_position(1000, 1)).file_name == "glm3-6b_rank_0-1000_1.ckpt"
    assert sink_position(4, 4) == (1, 4)
    assert sink_position(5, 4) == (2, 1)


@given(st.integers(1, 10**5), st.integers(1, 10**4))
def test_a_step_has_one_place_in_its_sink(step: int, sink_size: int) -> None:
    epoch, inside = sink_position(step, sink_size)
    assert (epoch - 1) * sink_size + inside == step
    assert 1 <= inside <= sink_size


def test_the_latest_is_found_by_number_not_by_text() -> None:
    names = [
        "g_rank_0-200_1.ckpt",
        "g_rank_0-1000_1.ckpt",
        "g_rank_0-network.ckpt",
        "last",
        "g_rank_0-90_4.ckpt",
    ]
    found = latest(names)
    assert found is not None
    assert found.file_name == "g_rank_0-1000_1.ckpt"
    assert [name.epoch for name in in_order(names)] == [90, 200, 1000]


def test_a_later_run_comes_after_an_earlier_one() -> None:
    found = latest(["g_rank_0-9_1.ckpt", "g_rank_0_1-1_1.ckpt"])
    assert found is not None
    assert (found.prefix, found.run) == ("g_rank_0_1", 1)


def test_nothing_is_latest_of_nothing() -> None:
    assert latest(["model.ckpt", "g_rank_0-1_1.ckpt.partial"]) is None


@given(st.integers(0, 5))
def test_a_new_run_takes_a_prefix_that_no_file_bears(runs: int) -> None:
    names: list[str] = []
    for _ in range(runs):
        names.append(CheckpointName(prefix_of("g", 3, free_run("g", 3, names)), 1, 1).file_name)
    prefix = prefix_of("g", 3, free_run("g", 3, names))
    assert prefix == ("g_rank_3" if not runs else f"g_rank_3_{runs}")
    assert not any(name.startswith(f"{prefix}-") for name in names)

"""What every store of strategies holds to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm3.adapters.memory.strategy_store import MemoryStrategyStore
from glm3.adapters.strategy.store import FileStrategyStore
from glm3.domain.errors import InvalidInputError, MissingFileError, MultipleFaultsError
from glm3.domain.layout.strategy import JobStrategy, Strategy
from glm3.domain.layout.tensor_layout import TensorLayout
from glm3.domain.ports.strategy_store import StrategyStore
from support.layouts import jobs

ADAPTERS = [FileStrategyStore, MemoryStrategyStore]
ENDINGS = ["ckpt", "json"]

ROWS = TensorLayout((2, 2), (0, -1), 2, -1)
COLUMNS = TensorLayout((2, 2), (-1, 0))
FIRST = Strategy({"embedding": COLUMNS, "layers.0.weight": ROWS}, 4, 0)
LAST = Strategy({"layers.1.weight": ROWS, "head": ROWS}, 4, 1)


@pytest.fixture(params=ADAPTERS)
def store(request: pytest.FixtureRequest) -> StrategyStore:
    return request.param()


def layouts_of(job: JobStrategy) -> list[tuple[int, int, dict[str, TensorLayout]]]:
    return [(stage.stage, stage.num_ranks, dict(stage.layouts)) for stage in job.stages]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_stage_is_read_as_it_was_written(store: StrategyStore, ending: str, tmp_path: Path) -> None:
    store.write(tmp_path / f"s.{ending}", FIRST)
    assert layouts_of(store.read(tmp_path / f"s.{ending}")) == [(0, 4, dict(FIRST.layouts))]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_merged_file_holds_every_stage(store: StrategyStore, ending: str, tmp_path: Path) -> None:
    job = JobStrategy((FIRST, LAST))
    store.write_merged(tmp_path / f"all.{ending}", job)
    assert layouts_of(store.read(tmp_path / f"all.{ending}")) == layouts_of(job)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_holds_a_file_of_every_rank(store: StrategyStore, ending: str, tmp_path: Path) -> None:
    for rank in range(8):
        store.write(tmp_path / f"ckpt_strategy_rank_{rank}.{ending}", (FIRST, LAST)[rank // 4])
    assert layouts_of(store.read(tmp_path)) == layouts_of(JobStrategy((FIRST, LAST)))


def test_what_an_earlier_merge_left_is_not_looked_at(store: StrategyStore, tmp_path: Path) -> None:
    store.write(tmp_path / "ckpt_strategy_rank_0.ckpt", FIRST)
    store.write_merged(tmp_path / "merged_ckpt_strategy.ckpt", JobStrategy((Strategy({"old": ROWS}, 4),)))
    assert layouts_of(store.read(tmp_path)) == [(0, 4, dict(FIRST.layouts))]


def test_it_is_read_where_there_is_nothing_else(store: StrategyStore, tmp_path: Path) -> None:
    store.write_merged(tmp_path / "merged_ckpt_strategy.ckpt", JobStrategy((FIRST, LAST)))
    assert store.read(tmp_path).num_stages == 2


def test_writing_again_replaces(store: StrategyStore, tmp_path: Path) -> None:
    store.write(tmp_path / "s.ckpt", FIRST)
    store.write(tmp_path / "s.ckpt", Strategy({"other": ROWS}, 4))
    assert store.read(tmp_path / "s.ckpt").parameters == ("other",)


@pytest.mark.parametrize("name", ["nowhere.ckpt", "."])
def test_what_is_not_there_is_named(store: StrategyStore, name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=tmp_path.name if name == "." else "nowhere"):
        store.read(tmp_path / name)


def test_files_of_one_stage_must_agree(store: StrategyStore, tmp_path: Path) -> None:
    store.write(tmp_path / "rank_0.ckpt", FIRST)
    store.write(tmp_path / "rank_1.ckpt", FIRST)
    store.write(tmp_path / "rank_2.ckpt", Strategy({**FIRST.layouts, "layers.0.weight": COLUMNS}, 4))
    with pytest.raises(
        InvalidInputError, match=r"rank_2\.ckpt.*rank_0\.ckpt disagree about layers\.0\.weight"
    ):
        store.read(tmp_path)


def test_every_missing_stage_and_disagreement_is_named(store: StrategyStore, tmp_path: Path) -> None:
    for rank, stage in enumerate([1, 1, 3]):
        store.write(
            tmp_path / f"rank_{rank}.ckpt", Strategy({f"w{rank // 2}": ROWS, f"v{rank}": ROWS}, 4, stage)
        )
    with pytest.raises(MultipleFaultsError) as caught:
        store.read(tmp_path)
    assert [fault.field for fault in caught.value.faults] == ["stage 1", "stage 0", "stage 2"]


def test_a_last_stage_alone_is_no_job(store: StrategyStore, tmp_path: Path) -> None:
    store.write(tmp_path / "rank_4.ckpt", LAST)
    with pytest.raises(InvalidInputError, match="stage 0"):
        store.read(tmp_path / "rank_4.ckpt")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(job=jobs((24, 16), "w", max_ranks=1024), ending=st.sampled_from(ENDINGS))
def test_any_job_survives_its_file(
    store: StrategyStore, job: JobStrategy, ending: str, tmp_path: Path
) -> None:
    filled = JobStrategy(
        tuple(
            Strategy(
                {**stage.layouts, "x": TensorLayout((stage.num_ranks,), (-1,))}, stage.num_ranks, stage.stage
            )
            for stage in job.stages
        )
    )
    store.write_merged(tmp_path / f"all.{ending}", filled)
    assert layouts_of(store.read(tmp_path / f"all.{ending}")) == layouts_of(filled)

"""Which file of a rank is the newest, and what is wrong with the folders of all ranks together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import MissingFileError, MultipleFaultsError
from glm3.domain.rank_files import find_rank_files, rank_of_folder, ranks_text


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def faults(folder: Path, world_size: int | None = None) -> str:
    with pytest.raises(MultipleFaultsError) as caught:
        find_rank_files(folder, world_size)
    return str(caught.value)


def test_the_newest_is_the_highest_step_by_number(tmp_path):
    for rank in range(2):
        touch(
            tmp_path / f"rank_{rank}",
            *(f"glm3_rank_{rank}-{sink}_1.ckpt" for sink in (90, 200, 1000)),
            "last",
            "run.json",
            "glm3_rank_0-1000_1.ckpt.crc32",
        )
    found = find_rank_files(tmp_path)
    assert [path.name for path in found.files.values()] == [f"glm3_rank_{r}-1000_1.ckpt" for r in range(2)]
    assert found.position == (1000, 1)


def test_a_later_run_of_the_prefix_is_newer_than_any_step_of_the_first(tmp_path):
    touch(
        tmp_path / "rank_0",
        "g_rank_0-9_9.safetensors",
        "g_rank_0_1-1_2.safetensors",
        "g_rank_0_1-1_1.safetensors",
    )
    assert find_rank_files(tmp_path).files[0].name == "g_rank_0_1-1_2.safetensors"


def test_the_only_file_of_a_rank_may_be_called_anything(tmp_path):
    touch(tmp_path, "rank_0/full.ckpt", "rank_1/glm3_6b1.ckpt", "strategy/x")
    found = find_rank_files(tmp_path)
    assert (found.files[1].name, found.position) == ("glm3_6b1.ckpt", None)


def test_the_weights_alone_have_no_step(tmp_path):
    touch(tmp_path, "rank_0/g_rank_0-network.ckpt", "rank_0/g_rank_0_1-network.ckpt")
    found = find_rank_files(tmp_path)
    assert (found.files[0].name, found.position) == ("g_rank_0_1-network.ckpt", None)


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    touch(
        tmp_path,
        "rank_0/g_rank_0-2_1.ckpt",
        "rank_1/g_rank_1-1_1.ckpt",  # older
        "rank_2/last",  # empty
        "rank3/g_rank_3-2_1.ckpt",  # misnamed
        "rank_04/g_rank_4-2_1.ckpt",  # misnamed
        "rank_5/g_rank_6-2_1.ckpt",  # another's
        "rank_7/a.ckpt",
        "rank_7/b.ckpt",  # doubtful
        "rank_8/g_rank_8-2_1.ckpt",
        "rank_8/g_rank_8-2_1.safetensors",  # twice
        "rank_9/g_rank_9-2_1.ckpt",
        "rank_9/h_rank_9-3_1.ckpt",  # of two series
        "rank_12/g_rank_12-2_1.ckpt",  # too many
    )
    text = faults(tmp_path, 11)
    for part in (
        "4 of 11 ranks have no folder (found no folder of rank 3-4, 6, 10)",
        "the strategy is of 11 ranks (found folders of rank 12 too)",
        "rank3: is not how a rank's folder is named",
        "rank_04: is not how a rank's folder is named",
        "rank_2: the rank has no checkpoint",
        "g_rank_6-2_1.ckpt: is another rank's file (expected rank 5, found rank 6)",
        "rank_7: several checkpoints whose names do not tell which is the newest (found a.ckpt, b.ckpt)",
        "rank_8: two checkpoints of one step",
        "rank_9: several checkpoints",
        "rank 1 has no file of the others' newest step",
        "(expected g at epoch 2 step 1, found g at epoch 1 step 1)",
    ):
        assert part in text
    assert text.count("\n- ") == 10


def test_a_folder_without_ranks_is_missing_them(tmp_path):
    with pytest.raises(MissingFileError, match="no rank's folder"):
        find_rank_files(touch(tmp_path, "strategy/x"))
    with pytest.raises(MissingFileError, match="no such folder"):
        find_rank_files(tmp_path / "absent")


@given(st.sets(st.integers(0, 40)))
def test_the_text_of_ranks_names_each_of_them_once(ranks):
    named: list[int] = []
    for part in filter(None, ranks_text(ranks).split(", ")):
        first, _, last = part.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(ranks)


@given(st.integers(0, 10**6))
def test_a_rank_has_one_folder_name(rank):
    assert rank_of_folder(f"rank_{rank}") == rank
    assert rank_of_folder(f"rank_0{rank}") is None

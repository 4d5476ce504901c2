"""Which rank runs where, and what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import UsageError
from glm3.domain.launching.placing import place_ranks
from glm3.domain.launching.rank_environment import (
    Cluster,
    RankFolders,
    RankPlace,
    fair_shares,
    rank_environment,
    scheduler_environment,
)
from glm3.domain.rank_table import Device, DeviceRange, RankTable, Server

FOLDERS = RankFolders(output=Path("/o"), log=Path("/l"), download=Path("/d"), save=Path("/s"))


def table(servers: int = 2, devices: int = 8, first: int = 0) -> RankTable:
    return RankTable(
        servers=tuple(
            Server(
                server_id=f"10.0.0.{s}",
                devices=tuple(Device(device_id=first + d, rank_id=s * devices + d) for d in range(devices)),
            )
            for s in range(servers)
        )
    )


def pairs(**arguments) -> tuple[list[tuple[int, int]], int]:
    placing = place_ranks(**arguments)
    return [(place.rank, place.device) for place in placing.places], placing.world_size


def test_a_range_alone_names_devices():
    assert pairs(devices=DeviceRange(4, 8)) == ([(0, 4), (1, 5), (2, 6), (3, 7)], 4)


def test_a_range_and_a_size_name_ranks():
    assert pairs(devices=DeviceRange(8, 12), workers=16) == ([(8, 0), (9, 1), (10, 2), (11, 3)], 16)


def test_a_table_names_the_ranks_of_its_server():
    assert pairs(table=table(), node_rank=1) == ([(8 + n, n) for n in range(8)], 16)
    assert pairs(table=table(1, 2, first=6)) == ([(0, 6), (1, 7)], 2)


def test_devices_that_a_container_renumbers_are_found():
    assert pairs(table=table(1, 2, first=6), visible=(6, 7)) == ([(0, 0), (1, 1)], 2)


@given(st.integers(1, 12), st.integers(1, 8))
def test_machines_without_a_table_share_all_ranks(machines: int, local: int):
    seen = []
    for node in range(machines):
        places, world = pairs(workers=machines * local, local_workers=local, node_rank=node)
        assert world == machines * local
        assert [device for _, device in places] == list(range(local))
        seen += [rank for rank, _ in places]
    assert seen == list(range(machines * local))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "how many ranks"),
        ({"devices": DeviceRange(8, 16), "workers": 8}, r"DEVICE_RANGE.*within \[0,8\)"),
        ({"table": table()}, "which of its servers"),
        ({"table": table(), "node_rank": 2}, "no such server"),
        ({"table": table(), "node_rank": 0, "workers": 8}, "--workers: the rank table has other ranks"),
        ({"table": table(), "node_rank": 0, "local_workers": 4}, "--local-workers: the rank table has other"),
        ({"workers": 8, "node_rank": 0}, "how many of the ranks run on this machine"),
        ({"workers": 8, "local_workers": 4}, "which of the machines is this"),
        ({"workers": 8, "local_workers": 4, "node_rank": 2}, "at least 12"),
        ({"workers": 8, "local_workers": 3, "node_rank": 0}, "a divisor of --workers 8"),
    ],
)
def test_what_does_not_fit_is_told(arguments, message: str):
    with pytest.raises(UsageError, match=message):
        place_ranks(**arguments)


@given(st.integers(1, 512), st.integers(1, 64))
def test_cores_are_shared_fairly_and_all_used(cores: int, ranks: int):
    shares = fair_shares(cores, ranks)
    assert len(shares) == ranks
    assert max(shares) - min(shares) <= 1
    assert sum(shares) == max(cores, ranks)


def test_a_rank_of_a_table_knows_what_the_model_cards_launcher_tells():
    environment = rank_environment(
        RankPlace(rank=9, device=1), 16, FOLDERS, table=Path("/t.json"), cluster=None, threads=3
    )
    assert (
        environment
        | {
            "RANK_ID": "9",
            "RANK_SIZE": "16",
            "DEVICE_ID": "1",
            "RANK_TABLE_FILE": "/t.json",
            "LOCAL_DEFAULT_PATH": "/o",
            "LOG_MF_PATH": "/l",
            "CHECKPOINT_DOWNLOAD_FOLDER": "/d",
            "CHECKPOINT_SAVE_FOLDER": "/s",
            "OMP_NUM_THREADS": "3",
            "MS_ROLE": None,
            "MS_SCHED_HOST": None,
        }
        == environment
    )


def test_a_rank_of_a_cluster_knows_what_msrun_tells_and_no_table():
    cluster = Cluster(host="10.0.0.1", port=8118, join_seconds=60)
    environment = rank_environment(
        RankPlace(rank=1, device=1), 2, FOLDERS, table=None, cluster=cluster, threads=1
    )
    shared = {
        "MS_WORKER_NUM": "2", "MS_SCHED_HOST": "10.0.0.1", "MS_SCHED_PORT": "8118", "MS_TOPO_TIMEOUT": "60"
    }  # fmt: skip
    expected = {**shared, "MS_ROLE": "MS_WORKER", "MS_NODE_ID": "1", "RANK_TABLE_FILE": None}
    assert environment | expected == environment
    scheduler = scheduler_environment(2, cluster)
    assert scheduler | {**shared, "MS_ROLE": "MS_SCHED", "MS_NODE_ID": None} == scheduler


def test_what_the_user_has_set_stays():
    environment = rank_environment(
        RankPlace(rank=0, device=0), 1, FOLDERS, table=None, cluster=None, threads=3,
        kept={"OMP_NUM_THREADS", "GLOG_v", "RANK_ID"},
    )  # fmt: skip
    assert "OMP_NUM_THREADS" not in environment
    assert "GLOG_v" not in environment
    assert environment["RANK_ID"] == "0"

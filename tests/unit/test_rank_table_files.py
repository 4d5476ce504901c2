"""Rank tables as files: generated, merged, checked, found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm3.adapters.memory.device_network import FakeDeviceNetwork
from glm3.application.rank_tables import (
    GenerateRequest,
    check_tables,
    find_table,
    generate_table,
    merge_files,
)
from glm3.domain.errors import BackendError, MissingFileError, MultipleFaultsError, UsageError
from glm3.domain.rank_table import DeviceRange

NETWORK = FakeDeviceNetwork({n: f"192.{n % 4 + 1}.27.{6 + n // 4}" for n in range(8)})


def request(folder: Path, first: int = 0, last: int = 8, **changes: object) -> GenerateRequest:
    values = {"devices": DeviceRange(first, last), "visible": range(8), "folder": folder, **changes}
    return GenerateRequest(**values)


def test_the_file_has_the_model_cards_name_and_content(tmp_path: Path):
    written = generate_table(request(tmp_path), NETWORK)
    assert written.path == tmp_path / "hccl_8p_01234567_127.0.1.1.json"
    table = json.loads(written.path.read_text())
    assert list(table) == ["version", "server_count", "server_list", "status"]
    assert list(table["server_list"][0]) == ["server_id", "device", "host_nic_ip"]
    assert table["server_list"][0]["device"][7] == {
        "device_id": "7",
        "device_ip": "192.4.27.7",
        "rank_id": "7",
    }
    assert "127.0.1.1" in written.notes[0]


def test_visible_devices_need_not_start_at_0(tmp_path: Path):
    written = generate_table(request(tmp_path, 0, 4, visible=[4, 5, 6, 7], server_id="10.0.0.1"), NETWORK)
    assert written.path.name == "hccl_4p_0123_10.0.0.1.json"
    found = [(d.rank_id, d.device_id, d.device_ip) for d in written.table.servers[0].devices]
    assert found == [(n, n + 4, f"192.{n + 1}.27.7") for n in range(4)]
    assert written.notes == ()


def test_a_range_in_the_middle_counts_ranks_from_0(tmp_path: Path):
    written = generate_table(request(tmp_path, 4, 8, server_id="10.0.0.1"), NETWORK)
    assert written.path.name == "hccl_4p_4567_10.0.0.1.json"
    assert [(d.rank_id, d.device_id) for d in written.table.servers[0].devices] == [
        (n, n + 4) for n in range(4)
    ]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"visible": [4, 5]}, UsageError, "--visible_devices: fewer visible devices than are asked for"),
        ({"visible": [0, 1, 2, 3, 4, 5, 6, 6]}, UsageError, "a device stands twice"),
        ({"visible": range(8, 16)}, BackendError, "cannot be found"),
        ({"server_id": "../x"}, UsageError, "no server address"),
    ],
)
def test_what_cannot_be_generated_is_told(tmp_path: Path, changes: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        generate_table(request(tmp_path, **changes), NETWORK)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_an_address_asks_for_one(tmp_path: Path):
    with pytest.raises(UsageError, match="please input server ip"):
        generate_table(request(tmp_path), FakeDeviceNetwork(NETWORK.addresses, server=None))


def test_two_devices_with_one_address_are_not_written(tmp_path: Path):
    network = FakeDeviceNetwork(dict.fromkeys(range(8), "192.1.1.1"))
    with pytest.raises(MultipleFaultsError, match=r"192\.1\.1\.1 is given to 8 devices"):
        generate_table(request(tmp_path), network)
    assert list(tmp_path.iterdir()) == []


def test_two_machines_make_16_ranks(tmp_path: Path):
    other = FakeDeviceNetwork({n: f"193.{n}.0.1" for n in range(8)})
    one = generate_table(request(tmp_path, server_id="10.0.0.1"), NETWORK).path
    two = generate_table(request(tmp_path, server_id="10.0.0.2"), other).path
    merged = merge_files([two, one], tmp_path)
    assert merged.path == tmp_path / "hccl_2s_16p.json"
    table = json.loads(merged.path.read_text())
    assert table["server_count"] == "2"
    assert [server["server_id"] for server in table["server_list"]] == ["10.0.0.2", "10.0.0.1"]
    assert [d["rank_id"] for s in table["server_list"] for d in s["device"]] == [str(n) for n in range(16)]
    with pytest.raises(MultipleFaultsError, match="a merged table already"):
        merge_files(sorted(tmp_path.glob("hccl*.json")), tmp_path)


def test_faults_of_all_files_are_told_together(tmp_path: Path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(MultipleFaultsError) as caught:
        merge_files([tmp_path / "a.json", tmp_path / "b.json"], tmp_path)
    assert [fault.path.name for fault in caught.value.faults] == ["a.json", "b.json"]
    assert isinstance(check_tables([tmp_path / "b.json"])[0].faults[0], MissingFileError)


def test_the_platforms_table_is_found(tmp_path: Path):
    platform = tmp_path / "jobstart_hccl.json"
    assert find_table({}, platform) is None
    platform.write_text("{}")
    assert find_table({}, platform) == platform
    assert find_table({"RANK_TABLE_FILE": str(tmp_path)}, platform) == platform
    assert find_table({"RANK_TABLE_FILE": "/some/where.json"}, platform) == Path("/some/where.json")

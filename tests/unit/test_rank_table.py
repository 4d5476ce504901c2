"""The rules of rank tables: reading, checking, merging, writing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import MultipleFaultsError, UsageError
from glm3.domain.rank_table import (
    Device,
    RankTable,
    Server,
    merge_tables,
    merged_name,
    parse_device_range,
    parse_rank_table,
    read_rank_table,
    render,
)
from glm3.domain.rank_table.device_range import parse_launch_range


def document(servers: int = 1, devices: int = 2) -> dict[str, Any]:
    """Return a sound table as Python values."""
    return {
        "version": "1.0",
        "server_count": str(servers),
        "server_list": [
            {
                "server_id": f"10.0.{s // 256}.{s % 256}",
                "device": [
                    {
                        "device_id": str(d),
                        "device_ip": f"192.{d}.{s // 256}.{s % 256}",
                        "rank_id": str(s * devices + d),
                    }
                    for d in range(devices)
                ],
                "host_nic_ip": "reserve",
            }
            for s in range(servers)
        ],
        "status": "completed",
    }


def super_pods() -> dict[str, Any]:
    table = document(4, 2)
    table["version"] = "1.2"
    for s, server in enumerate(table["server_list"]):
        for d, device in enumerate(server["device"]):
            device["super_device_id"] = str((s % 2) * 2 + d)
    names = [server["server_id"] for server in table["server_list"]]
    table["super_pod_list"] = [
        {"super_pod_id": str(p), "server_list": [{"server_id": name} for name in names[2 * p : 2 * p + 2]]}
        for p in range(2)
    ]
    return table


def device(table: dict[str, Any], server: int, index: int) -> dict[str, Any]:
    return table["server_list"][server]["device"][index]


def faults_of(table: Any) -> list[str]:
    return [str(fault) for fault in read_rank_table(json.dumps(table), Path("t.json"))[1]]


@pytest.mark.parametrize("text", ["[0,8)", "[0,8]"])
def test_both_end_marks_leave_the_end_out(text: str):
    assert list(parse_device_range(text).ids) == list(range(8))


@pytest.mark.parametrize("text", ["[0,8)", "[0,8]", "(0,8)", "(0,8]"])
def test_a_launcher_reads_any_end_marks(text: str):
    assert list(parse_launch_range(text).ids) == list(range(8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,8", "a and b are two numbers"),
        ("(0,8)", "a and b are two numbers"),
        ("[0,9)", r"in the range \[0,8\], found \[0,9\)"),
        ("[3,3)", "first number must be less than the last"),
        ("[5,4)", "first number must be less than the last"),
        ("[3,6)", "same group"),
        ("[0,5)", "same group"),
    ],
)
def test_bad_ranges_are_explained(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        parse_device_range(text)


@pytest.mark.parametrize(("text", "per_node"), [("[0,4)", 8), ("[4,8)", 8), ("[0,16)", 16), ("[4,6)", 8)])
def test_groups_and_whole_servers_are_fine(text: str, per_node: int):
    assert str(parse_device_range(text, per_node)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a,8]", "start_device"),
        ("[0,x]", "end_device"),
        ("[0]", "end_device"),
        ("[0,1,2]", "not a range"),
        ("", "start_device"),
        ("[8,8]", "less than"),
    ],
)
def test_bad_launch_ranges_are_explained(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        parse_launch_range(text)


def test_the_text_is_the_model_cards_byte_for_byte():
    device = Device(device_id=0, device_ip="192.1.27.6", rank_id=0)
    server = Server(server_id="127.0.1.1", devices=(device,), others={"host_nic_ip": "reserve"})
    assert render(RankTable(servers=(server,))) == (
        '{\n    "version": "1.0",\n    "server_count": "1",\n    "server_list": [\n        {\n'
        '            "server_id": "127.0.1.1",\n            "device": [\n                {\n'
        '                    "device_id": "0",\n                    "device_ip": "192.1.27.6",\n'
        '                    "rank_id": "0"\n                }\n            ],\n'
        '            "host_nic_ip": "reserve"\n        }\n    ],\n    "status": "completed"\n}'
    )


@given(st.integers(1, 6), st.integers(1, 9), st.booleans())
def test_what_is_written_reads_back(servers: int, devices: int, pods: bool):
    table = super_pods() if pods else document(servers, devices)
    text = json.dumps(table, indent=4)
    parsed = parse_rank_table(text)
    assert parse_rank_table(render(parsed)) == parsed
    assert json.loads(render(parsed)) == table


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_merging_renumbers_in_the_order_given(servers: int, devices: int, data: st.DataObject):
    order = data.draw(st.permutations(range(servers)))
    whole = document(servers, devices)
    tables = []
    for index in order:
        single = document(1, devices)
        single["server_list"][0] = json.loads(json.dumps(whole["server_list"][index]))
        for rank, device in enumerate(single["server_list"][0]["device"]):
            device["rank_id"] = str(rank)
        tables.append((Path(f"{index}.json"), parse_rank_table(json.dumps(single))))
    merged = merge_tables(tables)
    assert [s.server_id for s in merged.servers] == [whole["server_list"][i]["server_id"] for i in order]
    assert [d.rank_id for s in merged.servers for d in s.devices] == list(range(servers * devices))
    assert parse_rank_table(render(merged)) == merged
    assert merged_name(merged) == f"hccl_{servers}s_{servers * devices}p.json"


def test_merging_refuses_merged_tables_and_names_them():
    one, two = (parse_rank_table(json.dumps(document(n))) for n in (1, 2))
    with pytest.raises(
        MultipleFaultsError, match=r"hccl_2s_4p.json: server_list: a merged table already"
    ) as caught:
        merge_tables([(Path("a.json"), one), (Path("hccl_2s_4p.json"), two)])
    assert "hccl*.json" in str(caught.value)


def test_merging_refuses_the_same_server_and_addresses_twice_all_at_once():
    table = parse_rank_table(json.dumps(document(1, 2)))
    with pytest.raises(MultipleFaultsError) as caught:
        merge_tables([(Path("a.json"), table), (Path("b.json"), table)])
    text = str(caught.value)
    assert "server_id: 10.0.0.0 stands in 2 tables" in text
    assert text.count("device_ip: ") == 2
    assert "a.json, b.json" in text


def test_merging_refuses_different_versions():
    plain, pods = document(1), super_pods()
    pods |= {"server_list": pods["server_list"][3:], "server_count": "1"}
    pods["super_pod_list"] = [{"super_pod_id": "1", "server_list": [{"server_id": "10.0.0.3"}]}]
    for rank, device in enumerate(pods["server_list"][0]["device"]):
        device["rank_id"] = str(rank)
    tables = [(Path(n), parse_rank_table(json.dumps(t))) for n, t in (("a", plain), ("b", pods))]
    with pytest.raises(MultipleFaultsError, match="b: version: another version"):
        merge_tables(tables)


def test_super_pods_are_joined_by_their_id():
    whole = super_pods()
    tables = []
    for index, server in enumerate(whole["server_list"]):
        for rank, device in enumerate(server["device"]):
            device["rank_id"] = str(rank)
        pod = {"super_pod_id": str(index // 2), "server_list": [{"server_id": server["server_id"]}]}
        single = {**whole, "server_count": "1", "server_list": [server], "super_pod_list": [pod]}
        tables.append((Path(f"{index}.json"), parse_rank_table(json.dumps(single))))
    assert json.loads(render(merge_tables(tables))) == super_pods()


def test_a_sound_super_pod_table_has_no_faults():
    assert faults_of(super_pods()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("super_pod_list"), "super_pod_list: missing in a table of version 1.2"),
        (
            lambda t: t["super_pod_list"].pop(),
            "server_id 10.0.0.2 (expected in one super-pod, found in none)",
        ),
        (lambda t: t["super_pod_list"].append(t["super_pod_list"][0]), "super_pod_id 0 stands 2 times"),
        (
            lambda t: t["super_pod_list"][0]["server_list"].append({"server_id": "x"}),
            "x is not in server_list",
        ),
        (lambda t: device(t, 0, 0).pop("super_device_id"), "found none for rank 0"),
        (lambda t: device(t, 0, 0).update(super_device_id="3"), "3 stands 2 times in super-pod 0"),
    ],
)
def test_faults_of_super_pods(change: Any, message: str):
    table = super_pods()
    change(table)
    assert any(message in fault for fault in faults_of(table)), faults_of(table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(version="1.1"), "version: unknown version"),
        (lambda t: t.update(version=1.0), "version: not a string"),
        (lambda t: t.update(status="initializing"), "status: the table is not ready"),
        (lambda t: t.update(server_count="3"), 'does not count server_list (expected "2", found "3")'),
        (lambda t: t.update(server_count=2), 'server_count: not a string (expected "2": numbers are written'),
        (
            lambda t: t.update(server_list={}),
            "server_list: not a list of objects (expected at least one, found",
        ),
        (lambda t: t.pop("server_list"), "server_list: missing"),
        (lambda t: t["server_list"].append(7), "server_list[2]: not an object (found a number)"),
        (lambda t: t["server_list"][1].update(server_id="10.0.0.0"), "server_id 10.0.0.0 stands 2 times"),
        (lambda t: t["server_list"][1].update(device=[]), "server_list[1].device: not a list of objects"),
        (lambda t: device(t, 1, 0).update(device_id="1"), "device_id 1 stands 2 times"),
        (lambda t: device(t, 1, 0).update(device_id="x"), "[1].device[0].device_id: not a number"),
        (lambda t: device(t, 1, 0).update(rank_id="0"), "rank 0 stands 2 times"),
        (lambda t: device(t, 1, 1).update(rank_id="9"), "found no 3, but 9"),
        (lambda t: device(t, 1, 0).update(device_ip="1.2.3"), "device_ip is no address"),
        (
            lambda t: device(t, 1, 0).update(device_ip="192.0.0.0"),
            "192.0.0.0 is given to 2 devices (expected one device for each address, found 10.0.0.0 device",
        ),
        (lambda t: device(t, 1, 0).pop("device_ip"), "several servers need device_ip"),
    ],
)
def test_faults_are_placed(change: Any, message: str):
    table = document(2)
    change(table)
    found = faults_of(table)
    assert any(message in fault for fault in found), found
    assert all(fault.startswith("t.json: ") for fault in found)


def test_all_faults_are_told_together():
    table = document(3)
    table.update(version="2.0", status="initializing", server_count="9")
    table["server_list"][2]["server_id"] = "10.0.0.0"
    table["server_list"][1]["device"][1]["device_ip"] = "nonsense"
    assert len(faults_of(table)) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{\n}}", "t.json:2: not JSON"),
        ("[]", "not a rank table"),
        (b"\xff\xfe\x00x\xff", "not "),
        ("[" * 100000, "not JSON"),
    ],
)
def test_what_is_no_table_is_told(text: str | bytes, message: str):
    table, faults = read_rank_table(text, Path("t.json"))
    assert table is None
    assert message in str(faults[0])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "version",
                        "server_list",
                        "device",
                        "rank_id",
                        "super_pod_list",
                        "group_list",
                        "instance_list",
                    ]
                ),
                inner,
            )
        ),
    )
)
def test_any_json_gets_an_answer(value: Any):
    table, faults = read_rank_table(json.dumps(value))
    assert faults
    assert table is None or isinstance(table, RankTable)


def test_modelarts_groups_become_ranks_in_their_order():
    instances = [
        {
            "devices": [{"device_id": d, "device_ip": f"192.{d}.10.{s}"} for d in "40"],
            "server_id": f"192.168.0.{s}",
        }
        for s in range(2)
    ]
    table = {"group_count": "1", "group_list": [{"instance_list": instances}], "status": "completed"}
    parsed = parse_rank_table(json.dumps(table))
    assert [(p.server, p.device.device_id) for _, p in sorted(parsed.placements().items())] == [
        (0, 4), (0, 0), (1, 4), (1, 0)
    ]  # fmt: skip
    assert json.loads(render(parsed))["server_list"][1]["device"][1]["rank_id"] == "3"


def test_a_table_of_a_thousand_ranks_is_read_at_once():
    text = json.dumps(document(128, 8))
    started = time.perf_counter()
    assert parse_rank_table(text).rank_count == 1024
    assert time.perf_counter() - started < 5  # a quadratic search takes minutes

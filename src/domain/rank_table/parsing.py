"""Read a rank table: HCCL's own layout, and ModelArts' ``jobstart_hccl.json``.

ModelArts writes groups of instances without rank numbers; ranks count in the order of the file. Source:
ModelArts' manual on the rank table of Ascend jobs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm3.domain.errors import ConfigError, Glm3Error, MultipleFaultsError
from glm3.domain.rank_table.checking import check_table
from glm3.domain.rank_table.reading import Reading, kind_of
from glm3.domain.rank_table.records import Device, RankTable, Server, SuperPod

__all__ = ["parse_rank_table", "read_rank_table"]

_TABLE = ("version", "server_count", "server_list", "super_pod_list", "status")
_SERVER = ("server_id", "device")
_DEVICE = ("device_id", "device_ip", "super_device_id", "rank_id")


def parse_rank_table(text: str | bytes, path: Path | None = None) -> RankTable:
    """Return a table that a job can run with.

    Raises:
        MultipleFaultsError: everything that is wrong with it.
    """
    table, faults = read_rank_table(text, path)
    if table is None or faults:
        raise MultipleFaultsError(f"{path or 'the text'} is no usable rank table", faults)
    return table


def read_rank_table(text: str | bytes, path: Path | None = None) -> tuple[RankTable | None, list[Glm3Error]]:
    """Return the table as far as it could be read, and everything that is wrong with it."""
    try:
        document = json.loads(text)
    except UnicodeDecodeError:
        return None, [ConfigError("not text", path=path, expected="a JSON file")]
    except json.JSONDecodeError as error:
        return None, [ConfigError(f"not JSON: {error.msg}", path=path, line=error.lineno)]
    except RecursionError:
        return None, [ConfigError("not JSON: nested too deeply", path=path)]
    reading = Reading(path)
    if not isinstance(document, dict):
        reading.fault("", "not a rank table", "an object", kind_of(document))
        return None, reading.faults
    grouped = "group_list" in document and "server_list" not in document
    table = _read_groups(document, reading) if grouped else _read_servers(document, reading)
    check_table(table, reading, complete=not reading.faults)
    return table, reading.faults


def _read_servers(document: Mapping[str, Any], reading: Reading) -> RankTable:
    count = reading.number(document, "server_count", "")
    servers = tuple(
        server
        for place, values in reading.items(document, "server_list", "")
        if (server := _read_server(values, place, reading)) is not None
    )
    listed = document.get("server_list")
    if count is not None and isinstance(listed, list) and count != len(listed):
        reading.fault("server_count", "does not count server_list", f'"{len(listed)}"', f'"{count}"')
    pods: tuple[SuperPod, ...] = ()
    if "super_pod_list" in document:
        items = reading.items(document, "super_pod_list", "")
        pods = tuple(_read_pod(values, place, reading) for place, values in items)
    return RankTable(
        servers=servers,
        version=reading.text(document, "version", "") or "",
        super_pods=pods,
        status=reading.text(document, "status", "") or "",
        others=_others(document, _TABLE),
    )


def _read_server(values: Mapping[str, Any], place: str, reading: Reading) -> Server | None:
    name = reading.text(values, "server_id", place)
    devices = []
    for inner, item in reading.items(values, "device", place):
        device_id = reading.number(item, "device_id", inner)
        rank = reading.number(item, "rank_id", inner)
        address = reading.text(item, "device_ip", inner, needed=False)
        super_device = reading.text(item, "super_device_id", inner, needed=False)
        if device_id is not None and rank is not None:
            devices.append(
                Device(
                    device_id=device_id,
                    rank_id=rank,
                    device_ip=address,
                    super_device_id=super_device,
                    others=_others(item, _DEVICE),
                )
            )
    if name is None:
        return None
    return Server(server_id=name, devices=tuple(devices), others=_others(values, _SERVER))


def _read_pod(values: Mapping[str, Any], place: str, reading: Reading) -> SuperPod:
    servers = [
        reading.text(item, "server_id", inner) for inner, item in reading.items(values, "server_list", place)
    ]
    return SuperPod(
        super_pod_id=reading.text(values, "super_pod_id", place) or "",
        server_ids=tuple(name for name in servers if name is not None),
    )


def _read_groups(document: Mapping[str, Any], reading: Reading) -> RankTable:
    servers: list[Server] = []
    rank = 0
    for group_place, group in reading.items(document, "group_list", ""):
        for place, instance in reading.items(group, "instance_list", group_place):
            name = reading.text(instance, "server_id", place)
            devices = []
            for inner, item in reading.items(instance, "devices", place):
                device_id = reading.number(item, "device_id", inner)
                address = reading.text(item, "device_ip", inner, needed=False)
                if device_id is not None:
                    devices.append(Device(device_id=device_id, rank_id=rank, device_ip=address))
                rank += 1
            if name is not None:
                servers.append(Server(server_id=name, devices=tuple(devices)))
    return RankTable(servers=tuple(servers), status=reading.text(document, "status", "") or "")


def _others(values: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in known}

"""Make one table of a job out of the tables of its servers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

from attrs import evolve

from glm3.domain.errors import ConfigError, Glm3Error, MultipleFaultsError, UsageError
from glm3.domain.rank_table.records import RankTable, Server, SuperPod

__all__ = ["merge_tables", "merged_name"]


def merged_name(table: RankTable) -> str:
    """Return the file name that the model card's tool gives a merged table."""
    return f"hccl_{len(table.servers)}s_{table.rank_count}p.json"


def merge_tables(tables: Sequence[tuple[Path, RankTable]]) -> RankTable:
    """Return the table of all servers, in the order given, with ranks counted from 0.

    Within a server ranks keep their order. Everything else stays as it is, the first table's if they differ.

    Raises:
        MultipleFaultsError: a table is a merged one already; servers or addresses stand in several.
        UsageError: there is no table.
    """
    if not tables:
        raise UsageError("nothing to merge", expected="the rank table of each server")
    faults = _merged_already(tables) + _different_versions(tables) + _in_several(tables)
    if faults:
        raise MultipleFaultsError(f"these {len(tables)} rank tables make no job", faults)
    servers: list[Server] = []
    rank = 0
    for _, table in tables:
        (server,) = table.servers
        devices = sorted(server.devices, key=lambda device: device.rank_id)
        numbered = [evolve(device, rank_id=number) for number, device in enumerate(devices, rank)]
        servers.append(evolve(server, devices=tuple(numbered)))
        rank += len(numbered)
    return evolve(tables[0][1], servers=tuple(servers), super_pods=_joined_pods(tables))


def _merged_already(tables: Sequence[tuple[Path, RankTable]]) -> list[Glm3Error]:
    return [
        ConfigError(
            "a merged table already",
            path=path,
            field="server_list",
            expected="1 server",
            found=f"{len(table.servers)} servers",
            hint="a pattern as hccl*.json also fits the result of an earlier merge: name the files",
        )
        for path, table in tables
        if len(table.servers) > 1
    ]


def _different_versions(tables: Sequence[tuple[Path, RankTable]]) -> list[Glm3Error]:
    first_path, first = tables[0]
    return [
        ConfigError(
            "another version",
            path=path,
            field="version",
            expected=f"{first.version}, as in {first_path}",
            found=table.version,
        )
        for path, table in tables
        if table.version != first.version
    ]


def _in_several(tables: Sequence[tuple[Path, RankTable]]) -> list[Glm3Error]:
    """Return what only one table may say: the server, its devices' addresses, numbers in a super-pod."""
    seen: dict[tuple[str, Hashable], list[Path]] = defaultdict(list)
    for path, table in tables:
        pods = {name: pod.super_pod_id for pod in table.super_pods for name in pod.server_ids}
        said: set[tuple[str, Hashable]] = set()
        for server in table.servers:
            said.add(("server_id", server.server_id))
            said |= {("device_ip", device.device_ip) for device in server.devices if device.device_ip}
            said |= {
                ("super_device_id", f"{device.super_device_id} of super-pod {pods.get(server.server_id)}")
                for device in server.devices
                if device.super_device_id
            }
        for fact in said:
            seen[fact].append(path)
    several = sorted((fact, paths) for fact, paths in seen.items() if len(paths) > 1)
    return [
        ConfigError(
            f"{value} stands in {len(paths)} tables",
            field=name,
            expected="in one",
            found=", ".join(map(str, paths)),
            hint="give each machine its own --server_ip" if name == "server_id" else None,
        )
        for (name, value), paths in several
    ]


def _joined_pods(tables: Sequence[tuple[Path, RankTable]]) -> tuple[SuperPod, ...]:
    members: dict[str, list[str]] = {}
    for _, table in tables:
        for pod in table.super_pods:
            members.setdefault(pod.super_pod_id, []).extend(pod.server_ids)
    return tuple(SuperPod(super_pod_id=pod, server_ids=tuple(names)) for pod, names in members.items())

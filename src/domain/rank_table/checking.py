"""What must hold in a rank table beyond the form of its fields."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from ipaddress import ip_address
from typing import TypeVar

from glm3.domain.rank_table.reading import Reading
from glm3.domain.rank_table.records import COMPLETED, PLAIN, SUPER_POD, RankTable

__all__ = ["check_table", "repeated"]

Item = TypeVar("Item", bound=Hashable)


def check_table(table: RankTable, reading: Reading, *, complete: bool) -> None:
    """Collect what is wrong; ``complete`` says that every device of the file could be read."""
    if table.version and table.version not in (PLAIN, SUPER_POD):
        expected = f"{PLAIN}, or {SUPER_POD} for super-pods"
        reading.fault("version", "unknown version", expected, table.version)
    if table.status and table.status != COMPLETED:
        hint = "whoever writes the table is not done with it yet"
        reading.fault("status", "the table is not ready", COMPLETED, table.status, hint)
    for name, count in repeated(server.server_id for server in table.servers):
        reading.fault("server_list", f"server_id {name} stands {count} times", "each server once")
    _check_devices(table, reading)
    if complete:
        _check_ranks(table, reading)
    if table.version == SUPER_POD:
        _check_pods(table, reading, complete=complete)


def repeated(items: Iterable[Item]) -> list[tuple[Item, int]]:
    """Return what stands more than once, with how often."""
    return [(item, count) for item, count in Counter(items).items() if count > 1]


def _check_devices(table: RankTable, reading: Reading) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for index, server in enumerate(table.servers):
        place = f"server_list[{index}].device"
        for number, count in repeated(device.device_id for device in server.devices):
            reading.fault(place, f"device_id {number} stands {count} times", f"once on {server.server_id}")
        for device in server.devices:
            if device.device_ip is None:
                continue
            try:
                ip_address(device.device_ip)
            except ValueError:
                found = repr(device.device_ip[:60])
                reading.fault(f"{place} {device.device_id}", "device_ip is no address", found=found)
            else:
                places[device.device_ip].append(f"{server.server_id} device {device.device_id}")
        without = [device.device_id for device in server.devices if device.device_ip is None]
        if without and table.version == PLAIN and len(table.servers) > 1:
            found = f"none for device_id {', '.join(map(str, without))}"
            reading.fault(place, "several servers need device_ip", "one for each device", found)
    for address, users in places.items():
        if len(users) > 1:
            expected, found = "one device for each address", ", ".join(users)
            reading.fault("device_ip", f"{address} is given to {len(users)} devices", expected, found)


def _check_ranks(table: RankTable, reading: Reading) -> None:
    ranks = [device.rank_id for server in table.servers for device in server.devices]
    for rank, count in repeated(ranks):
        reading.fault("rank_id", f"rank {rank} stands {count} times", "once")
    missing = sorted(set(range(len(ranks))) - set(ranks))
    if missing:
        expected = f"0 to {len(ranks) - 1}, for {len(ranks)} devices"
        surplus = sorted(set(ranks) - set(range(len(ranks))))
        found = f"no {_shortened(missing)}" + (f", but {_shortened(surplus)}" if surplus else "")
        reading.fault("rank_id", "the ranks do not count all devices", expected, found)


def _check_pods(table: RankTable, reading: Reading, *, complete: bool) -> None:
    if not table.super_pods:
        if complete:
            reading.fault("super_pod_list", f"missing in a table of version {SUPER_POD}")
        return
    for name, count in repeated(pod.super_pod_id for pod in table.super_pods):
        reading.fault("super_pod_list", f"super_pod_id {name} stands {count} times", "once")
    members = Counter(name for pod in table.super_pods for name in pod.server_ids)
    servers = {server.server_id: server for server in table.servers}
    for name in servers:
        if members[name] != 1:
            found = f"in {members[name]}" if members[name] else "in none"
            reading.fault("super_pod_list", f"server_id {name}", "in one super-pod", found)
    for name in members:
        if name not in servers and complete:
            reading.fault("super_pod_list", f"server_id {name} is not in server_list")
    for pod in table.super_pods:
        devices = [device for name in pod.server_ids if name in servers for device in servers[name].devices]
        without = [str(device.rank_id) for device in devices if device.super_device_id is None]
        if without:
            found = f"none for rank {', '.join(without)}"
            reading.fault("super_device_id", f"missing in super-pod {pod.super_pod_id}", found=found)
        for number, count in repeated(d.super_device_id for d in devices if d.super_device_id is not None):
            message = f"{number} stands {count} times in super-pod {pod.super_pod_id}"
            reading.fault("super_device_id", message, "once")


def _shortened(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8]))
    return shown if len(ranks) <= 8 else f"{shown} and {len(ranks) - 8} more"

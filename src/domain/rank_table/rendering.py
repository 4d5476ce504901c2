"""Write a rank table as the model card's tools do: four blanks of indent, every number a string."""

from __future__ import annotations

import json
from typing import Any

from glm3.domain.rank_table.records import Device, RankTable, Server

__all__ = ["render"]


def render(table: RankTable) -> str:
    """Return the text of the file."""
    document: dict[str, Any] = {
        "version": table.version,
        "server_count": str(len(table.servers)),
        "server_list": [_server(server) for server in table.servers],
    }
    if table.super_pods:
        document["super_pod_list"] = [
            {"super_pod_id": pod.super_pod_id, "server_list": [{"server_id": id_} for id_ in pod.server_ids]}
            for pod in table.super_pods
        ]
    document["status"] = table.status
    return json.dumps({**document, **table.others}, indent=4)


def _server(server: Server) -> dict[str, Any]:
    devices = [_device(device) for device in server.devices]
    return {"server_id": server.server_id, "device": devices, **server.others}


def _device(device: Device) -> dict[str, Any]:
    values: dict[str, Any] = {"device_id": str(device.device_id)}
    if device.device_ip is not None:
        values["device_ip"] = device.device_ip
    if device.super_device_id is not None:
        values["super_device_id"] = device.super_device_id
    return {**values, "rank_id": str(device.rank_id), **device.others}

"""The records of a rank table.

Source: HCCL's rank table configuration, versions 1.0 and 1.2 (super-pods). Numbers are numbers here and
strings in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen

__all__ = ["COMPLETED", "PLAIN", "SUPER_POD", "Device", "Placement", "RankTable", "Server", "SuperPod"]

PLAIN, SUPER_POD = "1.0", "1.2"
COMPLETED = "completed"
"""The status of a table whose writer is done with it."""


@frozen(kw_only=True)
class Device:
    """One accelerator: ``device_id`` on its server, ``rank_id`` in the job.

    ``super_device_id`` is its number in a super-pod. ``others`` holds what else the file says, as it is.
    """

    device_id: int
    rank_id: int
    device_ip: str | None = None
    super_device_id: str | None = None
    others: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class Server:
    """One machine of the job."""

    server_id: str
    devices: tuple[Device, ...]
    others: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class SuperPod:
    """Servers whose devices are linked to each other directly."""

    super_pod_id: str
    server_ids: tuple[str, ...]


@frozen(kw_only=True)
class Placement:
    """Where one rank runs; ``server`` counts from 0 in the order of the file."""

    server: int
    server_id: str
    device: Device


@frozen(kw_only=True)
class RankTable:
    """A whole job."""

    servers: tuple[Server, ...]
    version: str = PLAIN
    super_pods: tuple[SuperPod, ...] = ()
    status: str = COMPLETED
    others: Mapping[str, Any] = field(factory=dict)

    @property
    def rank_count(self) -> int:
        return sum(len(server.devices) for server in self.servers)

    def placements(self) -> dict[int, Placement]:
        """Return where each rank runs."""
        return {place.device.rank_id: place for place in self._all()}

    def _all(self) -> Iterator[Placement]:
        for index, server in enumerate(self.servers):
            for device in server.devices:
                yield Placement(server=index, server_id=server.server_id, device=device)

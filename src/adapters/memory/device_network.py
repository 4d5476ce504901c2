"""A machine whose devices have the addresses it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from glm3.domain.errors import BackendError
from glm3.domain.ports.device_network import DeviceAddresses

__all__ = ["FakeDeviceNetwork"]


@frozen
class FakeDeviceNetwork:
    """Knows ``addresses`` by device id, and its own as ``server``."""

    addresses: Mapping[int, str]
    server: str | None = "127.0.1.1"
    notes: tuple[str, ...] = ()

    def device_addresses(self, device_ids: Sequence[int]) -> DeviceAddresses:
        """See :class:`glm3.domain.ports.device_network.DeviceNetwork`."""
        unknown = [str(device) for device in device_ids if device not in self.addresses]
        if unknown:
            raise BackendError(
                "the addresses of the devices cannot be found", field=f"device {', '.join(unknown)}"
            )
        return DeviceAddresses(
            {device: self.addresses[device] for device in device_ids}, "memory", self.notes
        )

    def server_address(self) -> str | None:
        """See :class:`glm3.domain.ports.device_network.DeviceNetwork`."""
        return self.server

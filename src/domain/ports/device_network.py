"""Port: the network addresses of this machine and of its accelerators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

__all__ = ["DeviceAddresses", "DeviceNetwork"]


@frozen
class DeviceAddresses:
    """The address of each device by its id, where they come from, and what should be known about that."""

    by_device: Mapping[int, str]
    source: str
    notes: tuple[str, ...] = ()


class DeviceNetwork(Protocol):
    """A machine with accelerators that have network cards of their own."""

    def device_addresses(self, device_ids: Sequence[int]) -> DeviceAddresses:
        """Return the addresses of just these devices, numbered as the machine numbers them.

        Raises:
            BackendError: an address cannot be found.
        """
        ...

    def server_address(self) -> str | None:
        """Return the address that this machine's own name resolves to, if it does."""
        ...

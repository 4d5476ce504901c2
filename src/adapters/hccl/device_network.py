"""Ask the Ascend driver for addresses: ``hccn_tool``, or the file that it keeps them in."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from glm3.domain.errors import BackendError
from glm3.domain.ports.device_network import DeviceAddresses

__all__ = ["HccnDeviceNetwork"]

TOOL_SECONDS = 20.0
_LINE = re.compile(r"\s*address_(\d+)\s*=\s*(\S+)\s*")


@frozen
class HccnDeviceNetwork:
    """The machine we run on. The tool is asked first: the file may hold addresses of long ago."""

    tool: str = "hccn_tool"
    configuration: Path = Path("/etc/hccn.conf")

    def device_addresses(self, device_ids: Sequence[int]) -> DeviceAddresses:
        """See :class:`glm3.domain.ports.device_network.DeviceNetwork`."""
        asked = {device: address for device in device_ids if (address := self._ask(device)) is not None}
        unanswered = [device for device in device_ids if device not in asked]
        if not unanswered:
            return DeviceAddresses(asked, self.tool)
        written = self._configured()
        unknown = [device for device in unanswered if device not in written]
        if unknown:
            numbers = ", ".join(map(str, unknown))
            raise BackendError(
                "the addresses of the devices cannot be found",
                path=self.configuration,
                field=f"device {numbers}",
                expected=f"an answer of {self.tool}, or a line address_{unknown[0]}=IP",
                found="neither" if self.configuration.is_file() else "no answer and no such file",
                hint=f"{self.tool} -i {unknown[0]} -ip -s address IP netmask MASK sets one",
            )
        note = f"{self.tool} says nothing about device {', '.join(map(str, unanswered))}"
        return DeviceAddresses(
            {device: asked.get(device) or written[device] for device in device_ids},
            str(self.configuration),
            (f"{note}: read from {self.configuration}, which may be out of date",),
        )

    def server_address(self) -> str | None:
        """See :class:`glm3.domain.ports.device_network.DeviceNetwork`."""
        try:
            return socket.gethostbyname(socket.gethostname())
        except OSError:
            return None

    def _ask(self, device: int) -> str | None:
        """Return what stands behind the first colon of the first line, as in ``ipaddr:192.168.100.101``."""
        try:
            done = subprocess.run(  # noqa: S603  # Ascend's own tool
                [self.tool, "-i", str(device), "-ip", "-g"],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TOOL_SECONDS,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        first = next(iter(done.stdout.splitlines()), "")
        return first.partition(":")[2].strip() or None if done.returncode == 0 else None

    def _configured(self) -> dict[int, str]:
        try:
            lines = self.configuration.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return {}
        return {int(match[1]): match[2] for line in lines if (match := _LINE.fullmatch(line))}

"""Ranges of devices as the model card's tools write them. All of them are half-open.

``[0,8)``, ``[0,8]`` and, for a launcher, ``(0,8)`` mean devices 0 to 7: the end marks say nothing.
"""

from __future__ import annotations

import re

from attrs import frozen

from glm3.domain.errors import UsageError

__all__ = ["DeviceRange", "parse_device_range", "parse_launch_range"]

_GROUP = 4
"""Devices of a server are linked in groups of four, which a job must not straddle unless it takes all."""
_WHOLE_SERVERS = (8, 16)


@frozen
class DeviceRange:
    """The devices ``first`` up to, not including, ``last``."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def __str__(self) -> str:
        return f"[{self.first},{self.last})"

    @property
    def ids(self) -> range:
        return range(self.first, self.last)


def parse_device_range(text: str, per_node: int = 8) -> DeviceRange:
    """Read the ``--device_num`` of the rank table tool; a server has ``per_node`` devices.

    Raises:
        UsageError: the text is no range, or no job may run on just these devices.
    """
    match = re.fullmatch(r"\[(\d{1,9}),(\d{1,9})[)\]]", text)
    if match is None:
        raise UsageError(
            "invalid format of device_num",
            field="--device_num",
            expected='"[a,b)", where a and b are two numbers',
            found=repr(text),
        )
    found = DeviceRange(int(match[1]), int(match[2]))
    if found.last > per_node:
        raise UsageError(
            "there are not so many devices",
            field="--device_num",
            expected=f"in the range [0,{per_node}]",
            found=str(found),
            hint="--device_num_per_node says how many devices a server has",
        )
    _require_some(found, "--device_num")
    whole = found.first == 0 and found.last in _WHOLE_SERVERS
    if found.first < _GROUP < found.last and not whole:
        raise UsageError(
            "the devices must be in the same group",
            field="--device_num",
            expected=f"within [0,{_GROUP}) or [{_GROUP},{2 * _GROUP}), or all of a server",
            found=str(found),
        )
    return found


def parse_launch_range(text: str) -> DeviceRange:
    """Read the DEVICE_RANGE of a launcher, whatever its end marks are.

    Raises:
        UsageError: it is no range of at least one device.
    """
    ends = text[1:-1].split(",")
    for name, value in zip(("start_device", "end_device"), [*ends, ""][:2], strict=True):
        if not re.fullmatch(r"\d{1,9}", value):
            raise UsageError(
                f"{name} is not a number",
                field="DEVICE_RANGE",
                expected="a range in quotes, as '[0,8]' for the devices 0 to 7",
                found=repr(text),
            )
    if len(ends) != 2:
        raise UsageError("not a range", field="DEVICE_RANGE", expected="two numbers", found=repr(text))
    found = DeviceRange(int(ends[0]), int(ends[1]))
    _require_some(found, "DEVICE_RANGE")
    return found


def _require_some(found: DeviceRange, field: str) -> None:
    if found.first >= found.last:
        raise UsageError(
            "the first number must be less than the last number, which does not belong to the range",
            field=field,
            expected=f"for example [{found.first},{found.first + 1})",
            found=str(found),
        )

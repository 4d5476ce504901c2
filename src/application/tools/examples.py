"""The tools that come along: harmless ones, which show how a tool is written."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from glm3.domain.errors import InvalidInputError
from glm3.domain.tools.arithmetic import evaluate
from glm3.domain.tools.toolbox import Toolbox

__all__ = ["calculator", "clock", "example_tools"]


def calculator(
    expression: Annotated[str, "arithmetic, for example (3 + 4) * 2 ** 10 or sqrt(2)"],
) -> str:
    """Compute an arithmetic expression exactly."""
    value = evaluate(expression)
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def clock(
    timezone: Annotated[str, "name of a time zone, for example Asia/Shanghai"] = "UTC",
) -> str:
    """Tell the current date, day of the week and time."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones
        raise InvalidInputError(
            "no such time zone", expected="a name such as Asia/Shanghai or UTC", found=timezone[:40]
        ) from None
    return f"{datetime.now(zone):%Y-%m-%d %A %H:%M:%S %z}"


def example_tools() -> Toolbox:
    """Return the tools that programs offer by name."""
    return Toolbox([calculator, clock])

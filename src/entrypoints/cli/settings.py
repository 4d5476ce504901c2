"""What the global options say."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

__all__ = ["LogFormat", "LogLevel", "Settings"]


class LogFormat(StrEnum):
    """How a log line looks."""

    console = "console"
    json = "json"


class LogLevel(StrEnum):
    """How important a log line is."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


@frozen(kw_only=True)
class Settings:
    """The global options of one call."""

    log_format: LogFormat = LogFormat.console
    log_level: LogLevel = LogLevel.warning
    debug: bool = False
    offline: bool = False

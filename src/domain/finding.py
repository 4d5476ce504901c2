"""What an examination of a machine finds."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

__all__ = ["Finding", "Status"]


class Status(StrEnum):
    """How much a finding matters."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@frozen
class Finding:
    """One looked-at thing: what was found, and what to do about it where that is anything."""

    name: str
    status: Status
    found: str
    advice: str = ""

"""The part of protobuf's wire format that a checkpoint uses, scanned in a file without loading it.

Source: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from glm3.domain.errors import CheckpointError
from glm3.domain.positional_io import read_at

__all__ = ["LENGTH_DELIMITED", "VARINT", "Field", "FileWindow", "field_key", "fields", "varint"]

VARINT, _FIXED64, LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10
_WINDOW = 4096  # bytes read at once; a tensor's header takes about a hundred


class FileWindow:
    """The bytes of a file below ``end``, a window at a time."""

    def __init__(self, descriptor: int, end: int, path: Path) -> None:
        self._descriptor = descriptor
        self.end = end
        self.path = path
        self._start = 0
        self._bytes = b""

    def byte(self, offset: int) -> int:
        if not self._start <= offset < self._start + len(self._bytes):
            self._start = offset
            self._bytes = read_at(self._descriptor, offset, min(_WINDOW, self.end - offset), self.path)
        return self._bytes[offset - self._start]

    def take(self, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` to ``end``, which the caller has bounded."""
        return read_at(self._descriptor, start, end - start, self.path)

    def fault(self, reason: str, offset: int) -> CheckpointError:
        """Return the error that names the file and the offset."""
        return CheckpointError(
            f"{reason}, at offset {offset}",
            path=self.path,
            hint="the file is cut, damaged or encrypted, or not a MindSpore checkpoint",
        )


@frozen
class Field:
    """One field of a message; ``value`` is a varint's number, else the payload is ``[start, end)``."""

    number: int
    wire_type: int
    start: int
    end: int
    value: int = 0


def read_varint(window: FileWindow, offset: int, end: int) -> tuple[int, int]:
    """Return an unsigned varint and the offset behind it.

    Raises:
        CheckpointError: it runs over ``end`` or over ten bytes.
    """
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if offset + index >= end:
            raise window.fault("a number is cut off", offset)
        byte = window.byte(offset + index)
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, offset + index + 1
    raise window.fault("a number is too long", offset)


def fields(window: FileWindow, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message in ``[start, end)`` without reading their payloads.

    Raises:
        CheckpointError: a field is not well formed or reaches beyond its message.
    """
    offset = start
    while offset < end:
        at = offset
        key, offset = read_varint(window, offset, end)
        number, wire_type = key >> 3, key & 7
        value, payload = 0, offset
        if wire_type == VARINT:
            value, offset = read_varint(window, offset, end)
        elif wire_type == LENGTH_DELIMITED:
            length, payload = read_varint(window, offset, end)
            offset = payload + length
        elif wire_type in _FIXED_SIZES:
            offset += _FIXED_SIZES[wire_type]
        else:
            raise window.fault(f"unknown wire type {wire_type}", at)
        if number == 0:
            raise window.fault("field number 0", at)
        if offset > end:
            raise window.fault(
                f"field {number} claims {offset - payload} bytes where {end - payload} are left", at
            )
        yield Field(number, wire_type, payload, offset, value)


def varint(value: int) -> bytes:
    """Return the encoding of a non-negative number."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field_key(number: int, wire_type: int) -> bytes:
    """Return what stands before a field's value."""
    return varint(number << 3 | wire_type)

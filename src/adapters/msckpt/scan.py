"""Find every entry of a MindSpore checkpoint and where its numbers lie.

The file is ``Checkpoint{value=1 repeated {tag=1, tensor=2 {dims=1 repeated, tensor_type=2,
tensor_content=3}}}``; the pieces of a large tensor follow each other under the same tag. A file saved
with ``crc_check`` ends in the text ``crc_num`` and ten bytes.
"""

from __future__ import annotations

from attrs import define, field

from glm3.adapters.msckpt.wire import LENGTH_DELIMITED, VARINT, Field, FileWindow, fields, read_varint

__all__ = ["CRC_BYTES", "CRC_MARK", "Entry", "scan"]

CRC_MARK, CRC_BYTES = b"crc_num", 17

_VALUE, _TAG, _TENSOR, _MAP_TENSOR = 1, 1, 2, 3
_DIMS, _TYPE, _CONTENT = 1, 2, 3
_MAX_TEXT = 1 << 16  # bytes of a name; far above any real one, far below what a lying length could ask for
_MAX_DIMS = 32


@define
class Entry:
    """A named value: its type's name, its sizes, and the ``(offset, length)`` of each piece of content."""

    tag: str
    type_name: str
    dims: tuple[int, ...]
    pieces: list[tuple[int, int]] = field(factory=list)

    @property
    def nbytes(self) -> int:
        return sum(length for _, length in self.pieces)


def scan(window: FileWindow) -> list[Entry]:
    """Return every entry in file order, the pieces of each joined.

    Raises:
        CheckpointError: with the offset of what is wrong.
    """
    entries: dict[str, Entry] = {}
    last: Entry | None = None
    for value in fields(window, 0, window.end):
        if value.number != _VALUE or value.wire_type != LENGTH_DELIMITED:
            raise window.fault(f"unexpected field {value.number} of a checkpoint", value.start)
        piece = _entry(window, value)
        if last is not None and piece.tag == last.tag:
            if (piece.dims, piece.type_name) != (last.dims, last.type_name):
                raise window.fault(f"the pieces of {piece.tag} differ in shape or type", value.start)
            last.pieces += piece.pieces
        elif piece.tag in entries:
            raise window.fault(f"{piece.tag} is stored twice", value.start)
        else:
            last = entries[piece.tag] = piece
    return list(entries.values())


def _entry(window: FileWindow, value: Field) -> Entry:
    tag: str | None = None
    tensor: Field | None = None
    for part in fields(window, value.start, value.end):
        if part.number == _TAG:
            tag = _text(window, part)
        elif part.number == _TENSOR:
            tensor = _once(window, tensor, part)
        elif part.number == _MAP_TENSOR:
            raise window.fault(f"{tag} is a hash-map parameter, which no ChatGLM3 has", part.start)
    if tag is None or tensor is None:
        raise window.fault("an entry without a name or a tensor", value.start)
    return _tensor(window, tag, tensor)


def _tensor(window: FileWindow, tag: str, tensor: Field) -> Entry:
    dims: list[int] = []
    type_name: str | None = None
    content: Field | None = None
    for part in fields(window, tensor.start, tensor.end):
        if part.number == _DIMS:
            dims += _dims(window, part)
            if len(dims) > _MAX_DIMS:
                raise window.fault(f"{tag} has more than {_MAX_DIMS} dimensions", part.start)
        elif part.number == _TYPE:
            type_name = _text(window, part)
        elif part.number == _CONTENT:
            content = _once(window, content, part)
    if type_name is None or content is None:
        raise window.fault(f"{tag} has no type or no content", tensor.start)
    return Entry(tag, type_name, tuple(dims), [(content.start, content.end - content.start)])


def _once(window: FileWindow, earlier: Field | None, part: Field) -> Field:
    if earlier is not None or part.wire_type != LENGTH_DELIMITED:
        raise window.fault(f"field {part.number} is repeated or of the wrong type", part.start)
    return part


def _text(window: FileWindow, part: Field) -> str:
    if part.wire_type != LENGTH_DELIMITED or part.end - part.start > _MAX_TEXT:
        raise window.fault("a name that is not a short text", part.start)
    try:
        return window.take(part.start, part.end).decode()
    except UnicodeDecodeError:
        raise window.fault("a name that is not UTF-8", part.start) from None


def _dims(window: FileWindow, part: Field) -> list[int]:
    """Read one size, or several in protobuf's packed form."""
    if part.wire_type == VARINT:
        return [_signed(part.value)]
    if part.wire_type != LENGTH_DELIMITED or part.end - part.start > _MAX_DIMS * 10:
        raise window.fault("sizes that are not numbers", part.start)
    dims, offset = [], part.start
    while offset < part.end:
        size, offset = read_varint(window, offset, part.end)
        dims.append(_signed(size))
    return dims


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value

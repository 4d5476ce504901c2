"""The header of a safetensors file: 8 bytes of length, JSON, then the tensors without gaps.

Source: the format's description at https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from glm3.domain.announced_tensors import check_shape
from glm3.domain.errors import CheckpointError
from glm3.domain.positional_io import read_at
from glm3.domain.tensors import DType, TensorSpec

__all__ = ["Header", "build_header", "file_order", "read_header"]

_MAX_HEADER = 100_000_000  # the reference implementation's own limit
_LENGTH = struct.Struct("<Q")
_CODES = {
    "F64": DType.FLOAT64,
    "F32": DType.FLOAT32,
    "F16": DType.FLOAT16,
    "BF16": DType.BFLOAT16,
    "I64": DType.INT64,
    "I32": DType.INT32,
    "I16": DType.INT16,
    "I8": DType.INT8,
    "U8": DType.UINT8,
    "BOOL": DType.BOOL,
}
_NAMES = {dtype: code for code, dtype in _CODES.items()}


@frozen
class Header:
    """Where every tensor of a file lies; ``offsets`` count from the start of the file."""

    specs: Mapping[str, TensorSpec]
    offsets: Mapping[str, int]
    metadata: Mapping[str, str]


def file_order(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Return the specs with the widest dtypes first, so that every tensor is aligned to its elements."""
    return sorted(specs, key=lambda spec: -spec.dtype.itemsize)


def build_header(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Return the first bytes of a file that stores ``specs`` in this order, and every tensor's offset."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset, starts = 0, {}
    for spec in specs:
        starts[spec.name] = offset
        end = offset + spec.nbytes
        entries[spec.name] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    base = _LENGTH.size + len(text)
    return _LENGTH.pack(len(text)) + text, {name: base + start for name, start in starts.items()}


def read_header(descriptor: int, file_size: int, path: Path) -> Header:
    """Read and check the header of an open file.

    Raises:
        CheckpointError: the header is cut, garbage, or contradicts itself or the file's size.
    """
    if file_size < _LENGTH.size:
        raise CheckpointError(
            "too short for a safetensors file",
            path=path,
            expected="at least 8 bytes",
            found=f"{file_size} bytes",
        )
    (length,) = _LENGTH.unpack(read_at(descriptor, 0, _LENGTH.size, path))
    if length > min(_MAX_HEADER, file_size - _LENGTH.size):
        raise CheckpointError(
            "not a safetensors file, or cut inside its header",
            path=path,
            expected=f"a header of at most {min(_MAX_HEADER, file_size - _LENGTH.size)} bytes",
            found=f"a length field of {length}",
        )
    entries = _parse_json(read_at(descriptor, _LENGTH.size, length, path), path)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise CheckpointError("must map text to text", path=path, field="__metadata__")
    return _lay_out(entries, metadata, _LENGTH.size + length, file_size, path)


def _lay_out(
    entries: dict[str, Any], metadata: Mapping[str, str], base: int, file_size: int, path: Path
) -> Header:
    placed = sorted(
        (_entry(name, value, path) for name, value in entries.items()), key=lambda entry: entry[1:]
    )
    offset = 0
    for spec, start, end in placed:
        if start != offset or end - start != spec.nbytes:
            raise CheckpointError(
                "the offsets overlap, leave a gap, or do not fit the shape",
                path=path,
                field=spec.name,
                expected=[offset, offset + spec.nbytes],
                found=[start, end],
            )
        offset = end
    if base + offset != file_size:
        raise CheckpointError(
            "the file is cut or has bytes behind its tensors",
            path=path,
            expected=f"{base + offset} bytes",
            found=f"{file_size} bytes",
            hint="copy or download it again",
        )
    return Header(
        specs={spec.name: spec for spec, _, _ in placed},
        offsets={spec.name: base + start for spec, start, _ in placed},
        metadata=metadata,
    )


def _parse_json(text: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("a name appears twice")
        return values

    try:
        entries = json.loads(text.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the header is not valid JSON: {error}", path=path) from None
    if not isinstance(entries, dict):
        raise CheckpointError("the header is not a JSON object", path=path)
    return entries


def _entry(name: str, value: object, path: Path) -> tuple[TensorSpec, int, int]:
    def is_sizes(candidate: object) -> bool:
        return isinstance(candidate, list) and all(type(size) is int and size >= 0 for size in candidate)

    if (
        not isinstance(value, dict)
        or not is_sizes(value.get("shape"))
        or not is_sizes(value.get("data_offsets"))
    ):
        raise CheckpointError("needs dtype, shape and data_offsets", path=path, field=name)
    code, offsets = value.get("dtype"), value["data_offsets"]
    if not isinstance(code, str) or code not in _CODES:
        raise CheckpointError(
            "unsupported dtype", path=path, field=name, expected=" ".join(_CODES), found=repr(code)
        )
    if len(offsets) != 2:
        raise CheckpointError("data_offsets needs a start and an end", path=path, field=name)
    return check_shape(TensorSpec(name, _CODES[code], tuple(value["shape"])), path), offsets[0], offsets[1]

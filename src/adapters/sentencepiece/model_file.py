"""Read a sentencepiece model file and make sure that all of it is there."""

from __future__ import annotations

from pathlib import Path

from glm3.domain.errors import MissingFileError, StorageError, TokenizerError

__all__ = ["read_model_file"]

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_HINT = "take the file from the folder of the ChatGLM3 weights again, or set the path of another one"


def read_model_file(path: Path) -> bytes:
    """Return the bytes of a complete model file.

    sentencepiece itself loads a file cut between two fields, and then encodes with other settings.

    Raises:
        MissingFileError: there is no such file.
        StorageError: it may not be read.
        TokenizerError: it is truncated or no sentencepiece model.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError("there is no tokenizer file", path=path, hint=_HINT) from None
    except IsADirectoryError:
        raise TokenizerError(
            "a folder, not a tokenizer file",
            path=path,
            hint=f"name the file in it: {path / 'tokenizer.model'}",
        ) from None
    except OSError as error:
        raise StorageError(f"cannot read the tokenizer file: {error.strerror}", path=path) from error
    fields = _top_level_fields(content, path)
    if missing := {_PIECES, _TRAINER, _NORMALIZER} - fields:
        names = {_PIECES: "pieces", _TRAINER: "trainer settings", _NORMALIZER: "normaliser settings"}
        raise _unusable(
            path, f"no {', '.join(names[number] for number in sorted(missing))} in {len(content)} bytes"
        )
    return content


def _top_level_fields(content: bytes, path: Path) -> set[int]:
    """Walk the top level of the protobuf message: every field of a model is length-delimited."""
    position, fields = 0, set[int]()
    while position < len(content):
        key, after_key = _varint(content, position)
        length, after_length = _varint(content, after_key)
        if key & 7 != 2 or not 1 <= key >> 3 <= 5:
            raise _unusable(path, f"unknown content at byte {position}")
        if after_length + length > len(content):
            raise _unusable(path, f"the file ends at byte {len(content)}, within a field")
        fields.add(key >> 3)
        position = after_length + length
    return fields


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(content[position : position + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    return len(content) + 1, len(content)  # cut off: longer than anything that could follow


def _unusable(path: Path, found: str) -> TokenizerError:
    return TokenizerError(
        "the tokenizer file is truncated or no sentencepiece model", path=path, found=found, hint=_HINT
    )

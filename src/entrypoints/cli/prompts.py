"""Where the prompts of a batch come from, and the result file of the model card.

Source: ``--predict_data`` and ``text_generation_result.txt`` of MindFormers' ``run_mindformer.py``.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from pathlib import Path

from glm3.domain.errors import UsageError
from glm3.entrypoints.cli.files import read_text, write_text

__all__ = ["looks_like_a_missing_file", "prompts_in_file", "prompts_of", "write_result"]


def prompts_of(values: Sequence[str]) -> list[str]:
    """Return the prompts that ``--predict_data`` means.

    One value is a file of prompts, if there is such a file, or else a prompt in which a backslash and an n
    are a line break. Several values are prompts as they are.

    Raises:
        UsageError: the one value is a folder.
        InvalidInputError: the file is not UTF-8.
    """
    if len(values) != 1:
        return list(values)
    (value,) = values
    if os.path.isdir(value):  # noqa: PTH112  # a prompt may be longer than any path: no exception here
        raise UsageError("a folder is no prompt", found=value, hint="name a file with one prompt a line")
    if os.path.isfile(value):  # noqa: PTH113
        return prompts_in_file(Path(value))
    return [_with_line_breaks(value)]


def looks_like_a_missing_file(values: Sequence[str]) -> bool:
    """Tell whether the one value ends as names of text files do, and there is no such file."""
    if len(values) != 1 or not values[0].endswith((".txt", ".json", ".jsonl")):
        return False
    return not os.path.exists(values[0])  # noqa: PTH110  # as above


def prompts_in_file(path: Path) -> list[str]:
    r"""Return a prompt for every line that is not blank; ``\n`` in a line is a line break.

    Raises:
        MissingFileError: there is no such file.
        InvalidInputError: it is not UTF-8.
        UsageError: there is no prompt in it.
    """
    prompts = [_with_line_breaks(line) for line in read_text(path).split("\n") if line.strip()]
    if not prompts:
        raise UsageError("holds no prompt", path=path, expected="one prompt a line")
    return prompts


def write_result(path: Path, texts: Sequence[str]) -> None:
    """Write the texts as Python prints a list, in UTF-8.

    Raises:
        StorageError: the file system refused.
    """
    write_text(path, str(list(texts)))


def _with_line_breaks(text: str) -> str:
    return text.rstrip("\r").replace("\\n", "\n")

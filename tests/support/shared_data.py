"""Find other people's data, which this project uses in tests where it is present and never ships."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]


def shared_data() -> Path | None:
    """Return the data folder: ``GLM3_TEST_DATA``, or ``../shared/data`` beside the repository; or None."""
    folder = Path(os.environ.get("GLM3_TEST_DATA") or _REPOSITORY.parent / "shared" / "data")
    return folder if folder.is_dir() else None


def real_tokenizer_path() -> Path | None:
    """Return where the published ``tokenizer.model`` lies, or None."""
    folder = shared_data()
    path = folder / "chatglm3-6b" / "tokenizer.model" if folder else None
    return path if path and path.is_file() else None


needs_real_tokenizer = [
    pytest.mark.needs_real_tokenizer,
    pytest.mark.skipif(
        real_tokenizer_path() is None,
        reason="the published tokenizer.model is not here; set GLM3_TEST_DATA to a folder with chatglm3-6b/",
    ),
]
"""Marks for ``pytestmark`` or a parameter."""

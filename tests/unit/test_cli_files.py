"""Whether a result could be written is known before the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm3.domain.errors import StorageError
from glm3.entrypoints.cli.files import require_writable


def test_the_folder_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "result.json")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("before")
    require_writable(tmp_path / "result.json")
    assert (tmp_path / "result.json").read_text() == "before"


def test_a_file_in_the_place_of_the_folder_is_an_error_that_names_the_target(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written") as caught:
        require_writable(tmp_path / "file" / "result.json")
    assert caught.value.path == tmp_path / "file" / "result.json"
    assert caught.value.hint


def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="expected a file, found a folder"):
        require_writable(tmp_path)

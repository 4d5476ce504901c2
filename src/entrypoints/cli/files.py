"""Small text files that users name on the command line."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.errors import InvalidInputError, MissingFileError, StorageError

__all__ = ["read_text", "require_writable", "write_text"]


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file.

    Raises:
        MissingFileError: there is no such file.
        InvalidInputError: it is not UTF-8.
        StorageError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingFileError("no such file", path=path) from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            "not a text file", path=path, expected="UTF-8", found=f"byte {error.start}: {error.reason}"
        ) from None
    except OSError as error:
        raise StorageError(error.strerror or str(error), path=path) from None


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole, or leave ``path`` as it was.

    Raises:
        StorageError: the file system refused.
    """
    with staged_file(path) as staged:
        write_durably(staged, text.encode("utf-8"))


def require_writable(path: Path) -> None:
    """Make the folder of ``path``, and find out before long work that its result can be written there.

    Raises:
        StorageError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}",
            path=path,
            hint="check the permissions, or choose another place",
        ) from error
    if path.is_dir():
        raise StorageError("cannot be written", path=path, expected="a file", found="a folder")

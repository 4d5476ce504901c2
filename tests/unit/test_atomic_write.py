"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from glm3.domain import atomic_write
from glm3.domain.atomic_write import (
    require_replaceable,
    staged_file,
    staged_folder,
    staging_folder,
    write_durably,
)
from glm3.domain.errors import MissingFileError, StorageError
from glm3.domain.positional_io import storage_errors


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_only_when_the_block_ends(tmp_path):
    with staged_file(tmp_path / "a") as staged:
        write_durably(staged, b"new")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert entries(tmp_path) == ["a"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def interrupted() -> None:
        with staged_file(tmp_path / "a") as staged:
            write_durably(staged, b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert entries(tmp_path) == ["a"]


def test_what_is_published_has_the_usual_permissions(tmp_path):
    umask = os.umask(0o027)
    try:
        with staged_folder(tmp_path / "f") as folder:
            write_durably(folder / "a", b"")
    finally:
        os.umask(umask)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "f" / "a").stat().st_mode & 0o777 == 0o640


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "a")
    with staged_file(tmp_path / "link") as staged:
        write_durably(staged, b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "a").read_bytes() == b"new"


def test_a_folder_of_weights_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "old.safetensors").write_bytes(b"")
    with staged_folder(tmp_path / "f") as folder:
        write_durably(folder / "new.safetensors", b"")
        assert entries(tmp_path / "f") == ["old.safetensors"]
    assert entries(tmp_path / "f") == ["new.safetensors"]
    assert entries(tmp_path) == ["f"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "f").mkdir()
    with staged_folder(tmp_path / "f") as folder:
        write_durably(folder / "a", b"")
    assert entries(tmp_path / "f") == ["a"]


@pytest.mark.parametrize("other", ["notes.txt", "sub/w.safetensors"])
def test_a_folder_of_other_things_is_never_replaced(tmp_path, other):
    file = tmp_path / "f" / other
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    with pytest.raises(StorageError, match="not replaced"), staged_folder(tmp_path / "f"):
        pass
    assert file.read_text() == "precious"


def test_a_file_is_not_replaced_by_a_folder_nor_the_other_way(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(StorageError, match="place of the folder"):
        require_replaceable(tmp_path / "a")
    (tmp_path / "f").mkdir()
    with pytest.raises(StorageError), staged_file(tmp_path / "f") as staged:
        write_durably(staged, b"")
    assert (tmp_path / "f").is_dir()


def test_folders_that_cannot_be_swapped_are_refused_with_the_old_one_whole(tmp_path, monkeypatch):
    class NoRename:
        def __init__(self, *args: object, **options: object) -> None: ...

    monkeypatch.setattr(atomic_write.ctypes, "CDLL", NoRename)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "w.ckpt").write_bytes(b"old")
    with pytest.raises(StorageError, match="swap"), staged_folder(tmp_path / "f"):
        pass
    assert (tmp_path / "f" / "w.ckpt").read_bytes() == b"old"


def test_leftovers_of_a_killed_writer_go_and_a_living_writers_stay(tmp_path):
    dead = tmp_path / ".a.0123abcd.partial"
    dead.mkdir()
    (dead / "half").write_bytes(b"half")
    others = [tmp_path / ".a.b.0123abcd.partial", tmp_path / ".a.partial", tmp_path / ".b.0123abcd.partial"]
    for other in others:
        other.mkdir()
    with staging_folder(tmp_path / "a") as living:
        assert not dead.exists()
        with staged_file(tmp_path / "a") as staged:
            write_durably(staged, b"")
        assert living.exists()
    assert all(other.exists() for other in others)
    assert not living.exists()


def test_writers_of_one_target_do_not_disturb_each_other(tmp_path):
    failures = []

    def write(content: bytes) -> None:
        try:
            for _ in range(30):
                with staged_file(tmp_path / "a") as staged:
                    write_durably(staged, content)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(name * 1000,)) for name in (b"x", b"y", b"z")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (tmp_path / "a").read_bytes() in (b"x" * 1000, b"y" * 1000, b"z" * 1000)
    assert entries(tmp_path) == ["a"]


def test_too_little_space_is_noticed_before_anything_is_written(tmp_path):
    with (
        pytest.raises(StorageError, match="not enough space") as caught,
        staged_file(tmp_path / "a", 1 << 60),
    ):
        pass
    assert caught.value.expected == f"{1 << 60} bytes"
    assert str(caught.value.found).endswith("bytes free")
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "found", "hint"),
    [
        (errno.EROFS, None, "check the permissions, or choose another place"),
        (errno.ENOSPC, "bytes free", "free some space, or choose another place"),
    ],
)
def test_only_a_full_disk_is_told_its_bytes(tmp_path, code, found, hint):
    with pytest.raises(StorageError) as caught, storage_errors(tmp_path / "a", 5):
        raise OSError(code, "refused")
    assert caught.value.hint == hint
    assert (caught.value.expected, (caught.value.found or "")[-10:] or None) == (found and "5 bytes", found)


def test_what_has_a_message_already_keeps_it(tmp_path):
    with pytest.raises(MissingFileError), storage_errors(tmp_path / "a"):
        raise MissingFileError("no such file", path=tmp_path / "b")


def test_space_that_runs_out_is_a_storage_error_and_leaves_nothing(tmp_path):
    """A file size limit of the process is the nearest thing to a full disk that needs no root."""
    program = """
import resource, signal, sys
from pathlib import Path
from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with staged_file(Path(sys.argv[1])) as staged:
        write_durably(staged, bytes(1 << 20))
except StorageError as error:
    print(error.path, error.expected, error.found, sep="|")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a")], capture_output=True, text=True, check=True
    )
    path, needed, free = done.stdout.strip().split("|")
    assert Path(path).name == "a"
    assert needed == f"{1 << 20} bytes"
    assert free.endswith("bytes free")
    assert entries(tmp_path) == []


def test_a_place_that_may_not_be_written_is_a_storage_error(tmp_path, monkeypatch):
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match="Permission denied") as caught, staged_file(tmp_path / "a"):
        pass
    assert caught.value.path == tmp_path / "a"


def test_a_parent_that_is_a_file_is_a_storage_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(StorageError), staged_file(tmp_path / "a" / "b"):
        pass

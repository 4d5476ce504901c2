from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import OpenerDirector

import pytest

from glm3.adapters.hub.http_downloader import HttpDownloader
from glm3.domain.errors import DownloadError, StorageError
from support.file_server import FileServer, serving

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(CONTENT) as running:
        yield running


@pytest.fixture
def downloader() -> HttpDownloader:
    return HttpDownloader(attempts=3, timeout=5, pause=0.01)


def test_a_file_comes_whole_and_says_how_far_it_is(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "new" / "file"
    downloader.fetch(
        server.url, target, size=len(CONTENT), sha256=SHA256, progress=lambda *at: seen.append(at)
    )
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_cut_connection_is_taken_up_where_it_broke(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    server.cut_after = 30_000
    downloader.fetch(server.url, tmp_path / "file", sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_a_later_call_goes_on_from_what_an_earlier_one_left(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:50_000])
    downloader.fetch(server.url, tmp_path / "file", sha256=SHA256)
    assert server.requests == ["bytes=50000-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_is_asked_for_everything_again(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    server.ranges = False
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    downloader.fetch(server.url, tmp_path / "file", sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_too_few_bytes_are_an_error_and_leave_no_file(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    server.lose = 7
    with pytest.raises(DownloadError, match=rf"expected {len(CONTENT)} bytes.*{len(CONTENT) - 7} bytes"):
        downloader.fetch(server.url, tmp_path / "file", size=len(CONTENT))
    assert not (tmp_path / "file").exists()


def test_wrong_bytes_are_an_error_with_both_sums_and_are_removed(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    server.content = b"!" + CONTENT[1:]
    with pytest.raises(DownloadError, match=SHA256):
        downloader.fetch(server.url, tmp_path / "file", size=len(CONTENT), sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    server.failures = 2
    downloader.fetch(server.url, tmp_path / "file", sha256=SHA256)
    asked = len(server.requests)
    with pytest.raises(DownloadError, match="404"):
        downloader.fetch(server.url.replace("/file", "/missing"), tmp_path / "other")
    assert len(server.requests) == asked + 1


def test_redirects_are_followed(server: FileServer, downloader: HttpDownloader, tmp_path: Path) -> None:
    downloader.fetch(server.url.replace("/file", "/moved"), tmp_path / "file", sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_nothing_listening_is_an_error_after_the_attempts(downloader: HttpDownloader, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    seen: list[tuple[int, int | None]] = []
    with pytest.raises(DownloadError, match="the download failed"):
        downloader.fetch(
            f"http://127.0.0.1:{port}/file", tmp_path / "file", size=7, progress=lambda *at: seen.append(at)
        )
    assert seen == [(0, 7)] * 3, "somebody who waits sees what for, at each attempt"


def test_offline_opens_no_connection_and_takes_what_is_there(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "create_connection", refuse)
    offline = HttpDownloader(offline=True)
    with pytest.raises(DownloadError, match="offline"):
        offline.fetch(server.url, tmp_path / "file")
    (tmp_path / "file").write_bytes(CONTENT)
    assert offline.fetch(server.url, tmp_path / "file", size=len(CONTENT)) == tmp_path / "file"
    assert server.requests == []


def test_a_file_of_another_size_is_fetched_again(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    downloader.fetch(server.url, tmp_path / "file", size=len(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.invalid/x"])
def test_other_schemes_are_refused(url: str, downloader: HttpDownloader, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="not an address"):
        downloader.fetch(url, tmp_path / "file")


def test_a_file_of_the_right_size_and_wrong_content_is_fetched_again(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"!" + CONTENT[1:])
    downloader.fetch(server.url, tmp_path / "file", size=len(CONTENT), sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_another_version_of_a_half_fetched_file_starts_over(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    """Without a checksum only the server's version tag can keep two versions from being mixed."""
    server.etag, server.cut_after = '"one"', 30_000
    impatient = HttpDownloader(attempts=0, timeout=5, pause=0.01)
    with pytest.raises(DownloadError):
        impatient.fetch(server.url, tmp_path / "file")
    server.content, server.etag, server.cut_after = CONTENT[::-1], '"two"', None
    downloader.fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT[::-1]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_part_that_was_not_asked_for_is_never_appended(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:50_000])
    server.shift = 10
    with pytest.raises(DownloadError, match="another part"):
        downloader.fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:50_000]


def test_more_than_the_server_has_is_thrown_away(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    downloader.fetch(server.url, tmp_path / "file", sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_redirect_to_another_scheme_is_refused(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match="unsafe address"):
        downloader.fetch(server.url.replace("/file", "/moved-to-ftp"), tmp_path / "file")


def test_a_certificate_that_is_not_trusted_ends_it_at_once(
    downloader: HttpDownloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def refuse(*_: Any, **__: Any) -> None:
        calls.append(1)
        error = ssl.SSLCertVerificationError()
        error.verify_message = "self-signed certificate"
        raise URLError(error)

    monkeypatch.setattr(OpenerDirector, "open", refuse)
    with pytest.raises(DownloadError, match="self-signed certificate"):
        downloader.fetch("https://127.0.0.1/file", tmp_path / "file")
    assert len(calls) == 1


def test_too_little_space_is_said_before_anything_is_written(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=rf"expected {len(CONTENT)} bytes, found 10 bytes free"):
        downloader.fetch(server.url, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_place_that_cannot_be_written_is_a_storage_error(
    server: FileServer, downloader: HttpDownloader, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file where a folder is needed")
    with pytest.raises(StorageError):
        downloader.fetch(server.url, tmp_path / "taken" / "file")


def fetch_in_a_process(url: str, target: Path) -> None:
    HttpDownloader(attempts=3, timeout=5, pause=0.01).fetch(url, target, sha256=SHA256)


def test_processes_that_want_the_same_file_fetch_it_once(server: FileServer, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=fetch_in_a_process, args=(server.url, tmp_path / "file")) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert server.requests == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

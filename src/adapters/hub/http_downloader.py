"""The downloader port over HTTP(S): resumed, verified, and published whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from glm3.domain.errors import DownloadError, StorageError
from glm3.domain.ports.downloader import Progress
from glm3.domain.positional_io import require_free_bytes

__all__ = ["HttpDownloader"]

_CHUNK = 1 << 20
_TRY_AGAIN_STATUS = (408, 425, 429)  # the other 4xx are the server's no; asking again does not change it


class HttpDownloader:
    """Fetch files with the standard library; certificates are checked.

    What has come of a file waits beside it as ``NAME.part``, so that a later call goes on from there.
    Processes that want the same file take turns.

    Args:
        offline: refuse before any connection is made.
        attempts: tries in a row that bring nothing new before giving up.
        timeout: seconds without any data that count as a cut connection.
        pause: seconds before the second try, doubled for each further one.
    """

    def __init__(
        self, *, offline: bool = False, attempts: int = 5, timeout: float = 30.0, pause: float = 1.0
    ) -> None:
        self._offline = offline
        self._attempts = attempts
        self._timeout = timeout
        self._pause = pause

    def fetch(
        self,
        url: str,
        target: Path,
        *,
        size: int | None = None,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """See :class:`glm3.domain.ports.downloader.Downloader`."""
        if _is_complete(target, size, sha256):
            return target
        if self._offline:
            raise DownloadError(
                "the file is not here and the network may not be used",
                path=target,
                found=f"{_state(target)}, offline, {url}",
                hint="put the file there yourself, or leave out --offline and GLM3_OFFLINE",
            )
        if not url.lower().startswith(("http://", "https://")):
            raise DownloadError("not an address to download from", expected="http(s)://...", found=url)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _turn(target):
                if not _is_complete(target, size, sha256):
                    part = target.with_name(f"{target.name}.part")
                    self._complete(url, part, size, progress)
                    _verify(url, part, size, sha256)
                    part.replace(target)
                    _version_file(part).unlink(missing_ok=True)
        except (DownloadError, StorageError):
            raise
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror or error}", path=target) from error
        return target

    def _complete(self, url: str, part: Path, size: int | None, progress: Progress | None) -> None:
        fruitless = 0
        while True:
            before = part.stat().st_size if part.exists() else 0
            if progress is not None:  # shown while a server does not answer, too
                progress(before, size)
            try:
                if self._receive(url, part, before, size, progress):
                    return
                reason = "the connection was cut"
            except HTTPError as error:
                if 400 <= error.code < 500 and error.code not in _TRY_AGAIN_STATUS:
                    raise DownloadError(
                        f"the server refused: {error.code} {error.reason}", path=part, found=url
                    ) from error
                reason = f"{error.code} {error.reason}"
            except (URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
                cause = getattr(error, "reason", error)
                if isinstance(cause, ssl.SSLCertVerificationError):
                    raise DownloadError(
                        f"the server's certificate is not trusted: {cause.verify_message}",
                        path=part,
                        found=url,
                        hint="SSL_CERT_FILE names the certificates of a company's own authority",
                    ) from error
                reason = str(cause) or type(error).__name__
            after = part.stat().st_size if part.exists() else 0
            fruitless = 0 if after > before else fruitless + 1
            if fruitless >= self._attempts:
                raise DownloadError(
                    f"the download failed: {reason}",
                    path=part,
                    expected="all of it" if size is None else f"{size} bytes",
                    found=f"{after} bytes of {url}",
                    hint="check the network or HTTPS_PROXY; what has come is kept, the same command goes on",
                )
            time.sleep(self._pause * 2 ** min(fruitless, 5) / 2)

    def _receive(self, url: str, part: Path, have: int, size: int | None, progress: Progress | None) -> bool:
        """Append what one connection brings and tell whether that was all."""
        if size is not None and have >= size:
            return True
        headers = {"User-Agent": "glm3", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if (version := _version_of(part)) is not None:
                headers["If-Range"] = version  # another version of the file then comes from its start
        request = Request(url, headers=headers)  # noqa: S310  # the scheme was checked
        try:
            response = build_opener(_Redirects).open(request, timeout=self._timeout)
        except HTTPError as error:
            if error.code != 416:
                raise
            _discard(part)  # there is more here than the server has: begin again
            return False
        with response:
            if response.status != 206:
                have = 0  # the server sends all of it, whatever was asked
                _discard(part)
                _version_file(part).write_text(response.headers.get("ETag", ""))
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise HTTPException("the server sent another part than was asked for")
            length = response.headers.get("Content-Length")
            total = have + int(length) if length is not None and length.isdigit() else None
            require_free_bytes(part, (total or size or have) - have)
            with part.open("ab" if have else "wb") as file:
                done = have + _copy(response, file, have, total or size, progress)
                file.flush()
                os.fsync(file.fileno())
        return total is None or done >= total


def _copy(response: BinaryIO, file: BinaryIO, have: int, total: int | None, progress: Progress | None) -> int:
    received = 0
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        received += len(chunk)
        if progress is not None:
            progress(have + received, total)
    return received


class _Redirects(HTTPRedirectHandler):
    """Follow a server to another address, but never from a checked certificate to none."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.lower().startswith("https://" if req.type == "https" else ("http://", "https://")):
            raise DownloadError(
                "the server sends us to an unsafe address", expected="https://...", found=newurl
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _version_of(part: Path) -> str | None:
    """Return the strong ETag of the version that ``part`` is the start of, if the server gave one."""
    file = _version_file(part)
    text = file.read_text() if file.is_file() else ""
    return text if text.startswith('"') else None


@contextmanager
def _turn(target: Path) -> Iterator[None]:
    """Wait for other processes that fetch the same file. The last one out removes the lock's file."""
    path = target.with_name(f".{target.name}.lock")
    while True:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not (path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))):
                continue  # its owner removed it while we waited: others may already hold a new one
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _state(target: Path) -> str:
    return f"another file of {target.stat().st_size} bytes" if target.is_file() else "no file"


def _is_complete(target: Path, size: int | None, sha256: str | None) -> bool:
    if not target.is_file() or (size is not None and target.stat().st_size != size):
        return False
    return sha256 is None or _digest(target) == sha256


def _verify(url: str, part: Path, size: int | None, sha256: str | None) -> None:
    found = part.stat().st_size
    if size is not None and found != size:
        _discard(part)
        raise DownloadError(
            "the file has the wrong size and was removed",
            path=part,
            expected=f"{size} bytes",
            found=f"{found} bytes from {url}",
        )
    if sha256 is not None and (digest := _digest(part)) != sha256:
        _discard(part)
        raise DownloadError(
            "the file has the wrong content and was removed",
            path=part,
            expected=f"sha256 {sha256}",
            found=f"{digest} from {url}",
            hint="the source has another version, or something on the way changed it",
        )


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

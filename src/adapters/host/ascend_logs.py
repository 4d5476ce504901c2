"""The logs that Ascend's driver, CANN and MindSpore leave on a machine, in one archive."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from glm3.domain.atomic_write import staged_file
from glm3.domain.ports.host_logs import CollectedLogs
from glm3.domain.positional_io import storage_errors

__all__ = ["AscendLogs"]

_NAMES = ("*.log", "*.txt", "*.ir", "*.info")
_LIMIT = 200 * 10**6


@frozen
class AscendLogs:
    """Look below ``root`` and in the folder where a job was started, for at most ``limit`` bytes."""

    root: Path = Path("/")
    working_folder: Path = Path()
    limit: int = _LIMIT

    def collect(self, target: Path, report: bytes) -> CollectedLogs:
        """See :class:`glm3.domain.ports.host_logs.HostLogs`; files that cannot be read are left out."""
        files, left_out, room = [], 0, self.limit
        newest = sorted(self._found(), key=lambda path: path.stat().st_mtime, reverse=True)
        with staged_file(target) as staged, storage_errors(target), tarfile.open(staged, "w:gz") as archive:
            facts = tarfile.TarInfo("doctor.json")
            facts.size = len(report)
            archive.addfile(facts, io.BytesIO(report))
            for path in newest:
                size = path.stat().st_size
                if size > room:
                    left_out += 1
                    continue
                room -= size
                name = str(path.resolve()).lstrip("/")
                archive.add(path, name, recursive=False)
                files.append(name)
        return CollectedLogs(target, tuple(files), left_out)

    def _found(self) -> Iterator[Path]:
        seen = set()
        for folder in self._folders():
            for pattern in _NAMES:
                for path in folder.rglob(pattern):
                    if path.is_file() and os.access(path, os.R_OK) and path.resolve() not in seen:
                        seen.add(path.resolve())
                        yield path

    def _folders(self) -> Iterator[Path]:
        """Yield CANN's process logs, the driver's, and what MindSpore's ranks left behind."""
        if named := os.environ.get("ASCEND_PROCESS_LOG_PATH"):
            yield Path(named)
        yield Path.home() / "ascend/log"
        yield self.root / "var/log/npu"
        yield from sorted(self.working_folder.glob("rank_*"))
        yield from sorted(self.working_folder.glob("mf_parallel*"))
        for name in ("log", "output/log", "kernel_meta"):
            yield self.working_folder / name

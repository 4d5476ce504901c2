"""What ``glm3 doctor --collect-logs`` puts into its archive."""

from __future__ import annotations

import os
import tarfile

import pytest

from glm3.adapters.host.ascend_logs import AscendLogs
from glm3.domain.errors import StorageError


@pytest.fixture
def machine(tmp_path, monkeypatch):
    for name, text, age in (
        ("home/ascend/log/debug/plog/plog-1.log", "old", 100),
        ("named/plog-2.log", "newest", 1),
        ("var/log/npu/slog/host.log", "driver", 50),
        ("job/rank_0/mindformer.log/info.log", "rank", 10),
        ("job/rank_0/weights.ckpt", "not a log", 5),
        ("job/secret.log", "not in a log folder", 5),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (10**9 - age, 10**9 - age))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASCEND_PROCESS_LOG_PATH", str(tmp_path / "named"))
    return tmp_path


def test_the_newest_logs_and_the_report(machine):
    target = machine / "logs.tar.gz"
    collected = AscendLogs(machine, machine / "job").collect(target, b"{}")
    assert [name.rpartition("/")[2] for name in collected.files] == [
        *("plog-2.log", "info.log", "host.log", "plog-1.log")
    ]
    with tarfile.open(target) as archive:
        assert archive.getnames() == ["doctor.json", *collected.files]
        assert archive.extractfile("doctor.json").read() == b"{}"
        assert archive.extractfile(collected.files[0]).read() == b"newest"


def test_older_logs_are_left_out_where_there_is_no_room(machine):
    collected = AscendLogs(machine, machine / "job", limit=10).collect(machine / "logs.tar.gz", b"{}")
    assert [name.rpartition("/")[2] for name in collected.files] == ["plog-2.log", "info.log"]
    assert collected.left_out == 2


def test_a_machine_without_logs_gives_the_report_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ASCEND_PROCESS_LOG_PATH", raising=False)
    collected = AscendLogs(tmp_path, tmp_path).collect(tmp_path / "logs.tar.gz", b"{}")
    assert collected.files == ()


def test_a_place_that_cannot_be_written_is_named(machine):
    (machine / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        AscendLogs(machine, machine / "job").collect(machine / "file" / "logs.tar.gz", b"{}")

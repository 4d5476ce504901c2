"""Real launchers and real ranks: what happens when ranks fail, hang or are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.launcher import Launched, gone, write_ssh, write_table

RANK = """
import os, signal, sys, time
rank, how = int(os.environ["RANK_ID"]), sys.argv[1]
told = [os.environ[name] for name in ("RANK_SIZE", "DEVICE_ID", "OMP_NUM_THREADS")]
print("up", os.getpid(), rank, *told)
if how == "talk":
    print("[INFO] DISTRIBUTED(7,7f64a19b6c0,python):2026-01-02-03:04:05.006.007 [tcp.cc:3] Start] success!")
    print("[INFO] is how my own lines begin")
if how in ("well", "talk"):
    sys.exit(0)
if how == "fail" and rank == 1:
    print("something is wrong here", file=sys.stderr)
    sys.exit(9)
if how == "behind" and rank == 0:
    sys.exit(0)
try:
    if how == "deaf":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("saved")
"""
SECONDS_TO_END = 30
"""What the launcher promises; measured is far less, but this machine may be busy."""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "rank.py").write_text(RANK)
    write_table(tmp_path)
    write_table(tmp_path, servers=2, devices=1)
    return tmp_path


def launched(folder: Path, how: str, *options: str, **variables: str) -> Launched:
    return Launched(folder, "--rank-table", "hccl_1s_2p.json", *options, "rank.py", how, **variables)


def test_ranks_run_are_shown_and_filed(job: Path):
    with launched(job, "well", OMP_NUM_THREADS="7") as run:
        code, text = run.end()
    assert code == 0, text
    for rank in (0, 1):
        filed = (job / "output" / "log" / f"rank_{rank}" / "mindformer.log").read_text()
        assert filed.split()[2:] == [str(rank), "2", str(rank), "7"]
        assert f"[rank {rank}] {filed.strip()}" in text


@pytest.mark.parametrize(("level", "shown"), [("3", False), ("1", True)])
def test_what_mindspore_says_at_the_end_is_filed_and_shown_only_if_asked_for(job: Path, level, shown):
    with launched(job, "talk", GLOG_v=level) as run:
        code, text = run.end()
    assert code == 0, text
    for rank in (0, 1):
        filed = (job / "output" / "log" / f"rank_{rank}" / "mindformer.log").read_text()
        assert "[INFO] DISTRIBUTED(7," in filed
        assert f"[rank {rank}] [INFO] is how my own lines begin" in text
    assert ("DISTRIBUTED" in text) == shown


def test_logs_go_where_the_user_says_and_only_chosen_ranks_are_shown(job: Path):
    with launched(job, "well", LOG_MF_PATH=str(job / "mine"), STDOUT_DEVICES="1") as run:
        _, text = run.end()
    assert "[rank 0]" not in text
    assert "[rank 1]" in text
    assert (job / "mine" / "rank_0" / "mindformer.log").read_text().startswith("up")


def test_a_rank_that_fails_ends_the_job_and_is_told_with_its_log(job: Path):
    with launched(job, "fail") as run:
        started = time.monotonic()
        code, text = run.end()
        assert time.monotonic() - started < SECONDS_TO_END
    assert code == 9
    assert "rank 1 ended with exit code 9; the job was ended" in text
    assert "  something is wrong here" in text
    assert "rank_1/mindformer.log" in text


def test_a_killed_rank_ends_even_those_that_do_not_listen(job: Path):
    with launched(job, "deaf", "--stop-timeout", "1") as run:
        lines = run.until("[rank 0] up", "[rank 1] up", "[rank 0] ready", "[rank 1] ready")
        pids = [int(line.split()[3]) for line in lines[:2]]
        killed = time.monotonic()
        os.kill(pids[0], signal.SIGKILL)
        code, text = run.end()
        assert time.monotonic() - killed < SECONDS_TO_END
    assert code == 137
    assert "rank 0 ended with exit code 137" in text
    assert gone(pids[1], 0.1)


def test_a_rank_that_hangs_after_the_others_is_named(job: Path):
    with launched(job, "behind", "--last-timeout", "1") as run:
        code, text = run.end()
    assert code == 124
    assert "rank 1 was still running 1 s after the first rank had ended" in text


def test_a_job_that_says_nothing_can_be_ended(job: Path):
    with launched(job, "wait", "--silence-timeout", "1") as run:
        code, text = run.end()
    assert code == 124
    assert "hangs: no line of rank 0, rank 1 for 1 s" in text


def test_an_interrupt_lets_ranks_save(job: Path):
    with launched(job, "wait") as run:
        run.until("[rank 0] ready", "[rank 1] ready")
        run.interrupt()
        code, text = run.end()
    assert code == 0
    assert "[rank 0] saved" in text
    assert "[rank 1] saved" in text


def test_a_second_interrupt_ends_them_at_once(job: Path):
    with launched(job, "deaf") as run:
        lines = run.until("[rank 0] up", "[rank 1] up", "[rank 0] ready", "[rank 1] ready")
        run.interrupt()
        run.until("interrupted: the ranks finish")
        run.interrupt()
        code, _ = run.end()
    assert code == 130
    assert all(gone(int(line.split()[3])) for line in lines[:2])


def test_ranks_die_with_a_killed_launcher(job: Path):
    with launched(job, "deaf") as run:
        lines = run.until("[rank 0] up", "[rank 1] up")
        run.process.kill()
    assert all(gone(int(line.split()[3])) for line in lines)


def on_hosts(folder: Path, how: str, *options: str) -> Launched:
    ssh = ("--hosts", "one,two", "--ssh", str(write_ssh(folder)))
    return Launched(folder, *ssh, "--rank-table", "hccl_2s_2p.json", *options, "rank.py", how)


def test_each_host_runs_its_ranks(job: Path):
    with on_hosts(job, "well") as run:
        code, text = run.end()
    assert code == 0, text
    assert "[one] [rank 0] up" in text
    assert "[two] [rank 1] up" in text


def test_a_failure_on_one_host_ends_the_others(job: Path):
    with on_hosts(job, "fail") as run:
        code, text = run.end()
    assert code == 9
    assert "[two]   something is wrong here" in text
    assert "two ended with exit code 9" in text


def test_an_interrupt_reaches_the_ranks_of_all_hosts(job: Path):
    with on_hosts(job, "wait") as run:
        run.until("[one] [rank 0] ready", "[two] [rank 1] ready")
        run.interrupt()
        code, text = run.end()
    assert code == 0
    assert "[one] [rank 0] saved" in text
    assert "[two] [rank 1] saved" in text


def test_a_lost_launching_machine_ends_the_ranks_elsewhere(job: Path):
    """The launcher of a host ends its ranks when the connection is gone."""
    options = ("--attached", "--node-rank", "1", "--rank-table", "hccl_2s_2p.json")
    with Launched(job, *options, "rank.py", "deaf") as run:  # its standard input is at its end already
        code, _ = run.end()
    assert code == 130


LOOP = """
IP_LIST=("one" "two")
server_count=2
device_num=$((1*server_count))
for idx in {0..1}
do
    let rank_start=1*$idx
    let rank_end=$rank_start+1
    ./ssh.sh ${IP_LIST[$idx]} \\
        "$GLM3 launch --detach --rank-table hccl_2s_2p.json --devices '[$rank_start,$rank_end]' \\
         --workers $device_num rank.py deaf"
done
"""


def test_a_loop_over_machines_starts_each_and_goes_on(job: Path):
    write_ssh(job)
    environment = {**os.environ, "GLM3": f"{sys.executable} -m glm3"}
    done = subprocess.run(
        ["bash", "-c", LOOP],
        cwd=job,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    launchers = [int(line.split()[1]) for line in done.stdout.splitlines()]
    try:
        assert len(launchers) == 2, done.stderr
        for rank, launcher in enumerate(launchers):
            log = job / "output" / "log" / f"launcher_rank_{rank}.log"
            wait_for(log, f"[rank {rank}] ready")
            rank_pid = int(log.read_text().split("up ")[1].split()[0])
            os.kill(launcher, signal.SIGTERM)
            wait_for(log, "interrupted")
            os.kill(launcher, signal.SIGTERM)
            assert gone(launcher)
            assert gone(rank_pid)
    finally:
        for launcher in launchers:
            gone(launcher, 0)


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in (path.read_text() if path.exists() else ""):
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.05)


def test_bad_input_starts_nothing(job: Path):
    with Launched(job, "--workers", "2", "--rank-table", "none.json", "nothing.py") as run:
        assert run.end() == (1, "error: nothing.py: no such script")
    with Launched(job, "--rank-table", "none.json", "rank.py", "well") as run:
        code, text = run.end()
    assert code == 2
    assert "none.json: no such rank table" in text
    with Launched(job, "--workers", "2", "fly") as run:
        assert run.end()[0] == 2
    assert not (job / "output").exists()

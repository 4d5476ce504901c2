"""Ranks that find each other through MindSpore's scheduler, which the launcher starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glm3.adapters.process.free_port import free_port
from support.cli import REPOSITORY
from support.launcher import Launched, gone, write_ssh

RANK = """
import os, sys, time
import numpy as np
from glm3.adapters.mindspore.communicator import join_job
world = join_job()
total = world.all_reduce(np.full(3, world.rank + 1.0, np.float32))
print("sum", total.tolist(), "pid", os.getpid(), flush=True)
while sys.argv[1:] == ["forever"]:
    world.all_reduce(total)
    time.sleep(0.1)
world.barrier()
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "rank.py").write_text(RANK)
    return tmp_path


@pytest.mark.slow
def test_ranks_of_one_machine_see_each_other(job: Path):
    with Launched(job, "--workers", "2", "rank.py") as run:
        code, text = run.end()
    assert code == 0, text
    for rank in (0, 1):
        assert f"[rank {rank}] sum [3.0, 3.0, 3.0]" in text
    assert (job / "output" / "log" / "scheduler.log").is_file()


@pytest.mark.slow
def test_two_launchers_make_one_job_and_a_killed_rank_ends_it(job: Path):
    """Two machines, as two launchers on the loopback address."""
    ssh = ("--hosts", "one,two", "--ssh", str(write_ssh(job)))
    meet = ("--master-addr", "127.0.0.1", "--master-port", str(free_port()))
    with Launched(job, *ssh, *meet, "--workers", "2", "rank.py", "forever") as run:
        lines = run.until("[one] [rank 0] sum [3.0, 3.0, 3.0]", "[two] [rank 1] sum [3.0, 3.0, 3.0]")
        pids = [int(line.split()[-1]) for line in lines]
        killed = time.monotonic()
        os.kill(pids[1], signal.SIGKILL)
        code, text = run.end()
        assert time.monotonic() - killed < 30
    assert code == 137
    assert "[two] rank 1 ended with exit code 137" in text
    assert all(gone(pid) for pid in pids)


def test_the_card_scripts_say_what_is_wrong():
    config = "../configs/glm3/run_glm3_6b_finetune*.yaml"
    done = subprocess.run(
        ["bash", "run_distribute.sh", "none.json", config, "[0,8]", "finetune"],
        cwd=REPOSITORY / "scripts",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode == 2
    assert "the pattern fits several files" in done.stderr

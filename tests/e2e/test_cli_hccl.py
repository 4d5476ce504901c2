"""``glm3 hccl`` and the model card's commands for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.cli import REPOSITORY, glm3


def environment(folder: Path, server: int = 6) -> dict[str, str]:
    tool = folder / "bin" / "hccn_tool"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f'#!/bin/sh\necho "ipaddr:192.$2.27.{server}"\n')
    tool.chmod(0o755)
    return {"PATH": f"{tool.parent}:{os.environ['PATH']}"}


def test_the_model_cards_commands_make_a_table_for_two_machines(tmp_path: Path):
    tools = REPOSITORY / "mindformers" / "tools"
    for server in (1, 2):
        command = [
            sys.executable,
            str(tools / "hccl_tools.py"),
            "--device_num",
            "[0,8)",
            "--server_ip",
            f"10.0.0.{server}",
        ]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, **environment(tmp_path, server)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"save in : {tmp_path}/hccl_8p_01234567_10.0.0.{server}.json" in done.stdout
        assert "rank_id: 7, device_id: 7, device_ip: 192.7.27" in done.stderr
    files = sorted(path.name for path in tmp_path.glob("hccl*.json"))
    done = subprocess.run(
        [sys.executable, str(tools / "merge_hccl.py"), *files],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "hccl_2s_16p.json").read_text())
    assert table["server_list"][1]["device"][7]["rank_id"] == "15"
    checked = glm3("hccl", "check", "hccl_2s_16p.json", *files, cwd=tmp_path)
    assert checked.returncode == 0
    assert checked.stdout.splitlines()[0] == "hccl_2s_16p.json: version 1.0, 2 servers, 16 ranks"


def test_faults_end_with_a_code_and_their_places(tmp_path: Path):
    (tmp_path / "bad.json").write_text('{"version": "1.0", "server_count": 1, "status": "completed"}')
    done = glm3("hccl", "check", cwd=tmp_path, environment={"RANK_TABLE_FILE": "bad.json"})
    assert done.returncode == 2
    assert "bad.json: server_count: not a string" in done.stderr
    assert "bad.json: server_list: missing" in done.stderr
    assert glm3("hccl", "generate", "--device_num", "[3,6)", cwd=tmp_path).returncode == 2

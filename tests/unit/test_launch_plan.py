"""A job is checked as a whole before anything of it starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.application.launch import DEFAULT_PORT, LaunchPlanner, LaunchRequest
from glm3.application.launch_hosts import HostsRequest, plan_hosts
from glm3.application.rank_tables import await_table, usable_table
from glm3.domain.errors import MultipleFaultsError, UsageError
from glm3.domain.launching.rank_environment import RankFolders
from glm3.domain.rank_table import DeviceRange, parse_rank_table
from support.launcher import write_table

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = REPOSITORY / "configs" / "glm3" / "glm3_tiny.yaml"
PARALLEL = ["use_parallel=True", "parallel_config.data_parallel=2"]


def planner(**changes) -> LaunchPlanner:
    values = {
        "builtin_rows": REPOSITORY / "src" / "resources" / "data",
        "cores": 4,
        "free_port": lambda: 5555,
        "scheduler": ("scheduler",),
        **changes,
    }
    return LaunchPlanner(**values)


def request(folder: Path, **changes) -> LaunchRequest:
    folders = RankFolders(output=folder, log=folder / "log", download=folder, save=folder)
    return LaunchRequest(command=("work",), folder=folder, folders=folders, **changes)


def config(*overrides: str):
    return YamlRunConfigReader().read(TINY, overrides)


def test_a_job_without_a_table_gets_a_scheduler_and_shares_the_cores(tmp_path: Path):
    plan = planner().plan(request(tmp_path, workers=2, config=config(*PARALLEL)))
    assert [member.name for member in plan.job.members] == ["rank 0", "rank 1"]
    assert [member.environment["OMP_NUM_THREADS"] for member in plan.job.members] == ["2", "2"]
    assert plan.job.members[1].log == tmp_path / "log" / "rank_1" / "mindformer.log"
    (scheduler,) = plan.job.helpers
    ports = {one.environment["MS_SCHED_PORT"] for one in (scheduler, *plan.job.members)}
    assert ports == {"5555"}


def test_several_machines_meet_at_the_agreed_port_and_the_first_runs_the_scheduler(tmp_path: Path):
    first, second = (
        planner().plan(request(tmp_path, workers=4, local_workers=2, node_rank=node, master_host="10.0.0.9"))
        for node in (0, 1)
    )
    assert first.runs_scheduler
    assert not second.runs_scheduler
    assert first.cluster == second.cluster
    assert first.cluster.port == DEFAULT_PORT
    assert [member.name for member in second.job.members] == ["rank 2", "rank 3"]


def test_a_table_needs_no_scheduler_except_on_the_cpu(tmp_path: Path):
    table = write_table(tmp_path)
    assert not planner().plan(request(tmp_path, table=table)).runs_scheduler
    on_cpu = planner().plan(request(tmp_path, table=table, config=config(*PARALLEL)))
    assert on_cpu.runs_scheduler
    assert on_cpu.job.members[0].environment["RANK_TABLE_FILE"] == str(table)


def test_one_rank_needs_neither(tmp_path: Path):
    plan = planner().plan(request(tmp_path, devices=DeviceRange(3, 4), config=config()))
    assert plan.cluster is None
    assert [member.environment["DEVICE_ID"] for member in plan.job.members] == ["3"]


def test_another_device_than_the_tables_is_pointed_out(tmp_path: Path):
    table = write_table(tmp_path)
    plan = planner().plan(request(tmp_path, table=table, devices=DeviceRange(4, 6)))
    assert "rank 0 takes 4, not 0" in plan.notes[0]
    moved = planner().plan(request(tmp_path, table=table, devices=DeviceRange(0, 2), visible=(0, 1)))
    assert moved.notes == ()


def test_everything_wrong_is_told_at_once(tmp_path: Path):
    wrong = config(
        "use_parallel=True", "parallel_config.data_parallel=3", "load_checkpoint=./none.ckpt",
        "train_dataset.data_loader.dataset_dir=rows.json", "train_dataset.tokenizer.vocab_file=no.model",
    )  # fmt: skip
    table = write_table(tmp_path, servers=2)
    with pytest.raises(MultipleFaultsError) as caught:
        planner().plan(request(tmp_path, table=table, devices=DeviceRange(1, 3), workers=3, config=wrong))
    text = str(caught.value)
    for part in (
        "RANK_SIZE: the rank table is another job's (expected 4 ranks, as in the table, found 3)",
        "DEVICE_RANGE: the ranks of this machine are those of several servers",
        "train_dataset.data_loader.dataset_dir: no such file (found rows.json)",
        "train_dataset.tokenizer.vocab_file: no such file",
        "load_checkpoint: no such file (found ./none.ckpt)",
    ):
        assert part in text


def test_a_broken_table_and_a_wrong_product_are_told_together(tmp_path: Path):
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(MultipleFaultsError) as caught:
        planner().plan(
            request(
                tmp_path,
                table=tmp_path / "t.json",
                devices=DeviceRange(0, 2),
                config=config("use_parallel=True", "parallel_config.data_parallel=4"),
            )
        )
    assert "not JSON" in str(caught.value)
    assert "parallel_config" in str(caught.value)


def test_ranks_that_would_train_alone_are_refused(tmp_path: Path):
    with pytest.raises(MultipleFaultsError, match=r"use_parallel=True parallel_config\.data_parallel=2"):
        planner().plan(request(tmp_path, workers=2, config=config()))


def test_modelarts_groups_are_rewritten_for_hccl(tmp_path: Path):
    groups = tmp_path / "jobstart_hccl.json"
    instance = {"server_id": "10.0.0.1", "devices": [{"device_id": "4", "device_ip": "192.1.10.254"}]}
    groups.write_text(json.dumps({"group_list": [{"instance_list": [instance]}], "status": "completed"}))
    plan = planner(rewrite_table=lambda path: usable_table(path, tmp_path)).plan(
        request(tmp_path, table=groups)
    )
    written = Path(plan.job.members[0].environment["RANK_TABLE_FILE"])
    assert parse_rank_table(written.read_bytes()).servers[0].devices[0].device_id == 4
    assert plan.job.members[0].environment["DEVICE_ID"] == "4"
    own = write_table(tmp_path)
    assert usable_table(own, tmp_path) == own


def test_a_table_that_is_still_written_is_waited_for(tmp_path: Path):
    path = write_table(tmp_path)
    done = path.read_text()
    path.write_text(done.replace("completed", "initializing"))
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            path.write_text(done)

    await_table(path, 100, sleep)
    assert len(waits) == 3


def hosts(folder: Path, **changes) -> HostsRequest:
    values = {
        "hosts": ("user@a", "b"),
        "ssh": ("ssh", "-o", "X=1"),
        "launcher": ("python", "-m", "glm3", "launch"),
        "options": ("--join-timeout", "9"),
        "command": ("finetune", "--config", "my file.yaml"),
        "folder": folder,
        **changes,
    }
    return HostsRequest(**values)


def test_each_host_gets_a_launcher_of_its_share(tmp_path: Path):
    job = plan_hosts(hosts(tmp_path, workers=4), None)
    first, second = job.members
    assert first.command[:4] == ("ssh", "-o", "X=1", "user@a")
    assert first.takes_orders
    assert first.command[4] == (
        f"cd {tmp_path} && exec python -m glm3 launch --attached --node-rank 0 --workers 4 --local-workers 2 "
        "--master-addr a --master-port 8118 --join-timeout 9 -- finetune --config 'my file.yaml'"
    )
    assert "--node-rank 1" in second.command[4]


def test_hosts_of_a_table_are_its_servers(tmp_path: Path):
    path = write_table(tmp_path, servers=2)
    table = parse_rank_table(path.read_bytes())
    job = plan_hosts(hosts(tmp_path, table=path), table)
    assert f"--node-rank 1 --rank-table {path}" in job.members[1].command[-1]
    with pytest.raises(MultipleFaultsError, match="expected 2, as the table has servers, found 3"):
        plan_hosts(hosts(tmp_path, table=path, hosts=("a", "b", "c")), table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 3}, "a multiple of 2"),
        ({}, "a multiple of 2"),
        ({"workers": 2, "hosts": ("a", "a")}, "each host stands once"),
        ({"workers": 2, "hosts": ("a", "")}, "each host stands once"),
    ],
)
def test_hosts_that_do_not_fit_are_told(tmp_path: Path, changes, message: str):
    with pytest.raises(MultipleFaultsError, match=message):
        plan_hosts(hosts(tmp_path, **changes), None)


def test_usage_errors_of_a_plan_are_among_its_faults(tmp_path: Path):
    with pytest.raises(MultipleFaultsError) as caught:
        planner().plan(request(tmp_path))
    assert isinstance(caught.value.faults[0], UsageError)

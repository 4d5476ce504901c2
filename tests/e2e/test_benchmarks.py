"""The benchmarks run, compare what they claim to compare, and print figures; how fast is not asked here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from support.cli import REPOSITORY

pytestmark = pytest.mark.slow


def benchmark(name: str, *arguments: object) -> str:
    """Run one as a user does, and return what it prints."""
    paths = [str(REPOSITORY / "typings"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / f"{name}.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_training_beside_torch():
    pytest.importorskip("torch", reason="torch is measured beside")
    header, row = benchmark("train", "--shape", "tiny", "--steps", 1, "--warmup", 1).splitlines()
    assert header.split()[0] == "shape"
    assert re.fullmatch(r"tiny( +[0-9.]+){6}", row)


def test_training_on_several_ranks():
    table = benchmark("scale_out", "--ranks", 1, 2, "--steps", 2, "--hidden", 128).splitlines()[2:]
    assert [row.split()[:2] for row in table] == [["1", "whole"], ["2", "whole"], ["2", "shared"]]


def test_answering(tmp_path):
    results = tmp_path / "results.json"
    sections = [word for name in ("decode", "lookup", "served", "batch") for word in ("--section", name)]
    benchmark("inference", *sections, "--rounds", 1, "--tokens", 8, "--json", results)
    found = json.loads(results.read_text())
    assert [result["case"] for result in found][:3] == ["decode 8", "look-up, copies", "look-up, misleading"]
    assert all(result["identical"] for result in found if result["section"] in ("lookup", "served"))
    assert all(result["passes"]["plain"] > 0 for result in found if result["section"] == "served")
    assert all(result["tokens_per_s"]["glm3"] > 0 for result in found)


def test_products_beside_their_limits(tmp_path):
    results = tmp_path / "results.json"
    options = ("--scheme", "int4", "--weight", "dense", "--tokens", 1, "--rounds", 1)
    benchmark("kernels", *options, "--json", results)
    (result,) = json.loads(results.read_text())
    assert result["read_gb_per_s"] > 0
    assert result["peak_gop_per_s"] > 0


def test_the_server_under_load():
    bounds = ("--growth", 1000, "--stall", 60)  # neither is a question of three seconds
    told = benchmark("serve", "--streams", 4, "--seconds", 3, "--stuck", 1, "--idle", 2, *bounds)
    assert re.search(r"answers: right [1-9][0-9]*, left \d+, wrong 0, lost 0, mixed 0", told)


def test_merging_beside_copying(tmp_path):
    embedded = REPOSITORY / "src" / "resources" / "tiny"
    work = tmp_path / "work"
    told = benchmark("merge", "--checkpoint", embedded, "--work", work, "--rounds", 1, "--cut", 1, 2, 1)
    assert re.search(r"speed by that of cp: [0-9.]+ of the ranks' files", told)
    assert not work.exists()

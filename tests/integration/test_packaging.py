"""What an installed package holds beside its code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build a wheel from a copy of the checkout, without an environment of its own."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "configs", "typings"):
        shutil.copytree(REPOSITORY / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(REPOSITORY / name, copy / name)
    code = "from setuptools import build_meta; print(build_meta.build_wheel('out'))"
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(
        [sys.executable, "-c", code], cwd=copy, env=environment, check=True, capture_output=True, timeout=120
    )
    return zipfile.ZipFile(next((copy / "out").glob("*.whl")))


def test_a_wheel_carries_the_configuration_files(wheel: zipfile.ZipFile) -> None:
    for file in (REPOSITORY / "configs" / "glm3").iterdir():
        assert wheel.read(f"glm3/resources/configs/{file.name}") == file.read_bytes()


def test_a_wheel_holds_one_top_level_package(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"glm3"}

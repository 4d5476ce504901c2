"""``glm3 kernels``: ahead of time, once, and what is there."""

from __future__ import annotations

import json

from glm3.entrypoints.paths import cache_folder
from support.cli import glm3
from support.native import kernel_build


def kernels(*arguments):
    done = glm3("kernels", *arguments, environment={"GLM3_CACHE": str(cache_folder())})
    assert done.returncode == 0, done.stderr
    return done


def test_build_and_list():
    kernel_build()  # skips where no compiler is
    built = json.loads(kernels("build", "--json").stdout)
    assert built["usable"]
    assert built["path"].endswith(".so")
    assert built["instructions"]
    listed = json.loads(kernels("list", "--json").stdout)
    assert built in listed
    text = kernels("list").stdout
    assert f"* {built['instructions']}" in text
    assert built["path"] in text
    again = kernels("build")
    assert again.stdout.strip() == built["path"]
    assert "compiling" not in again.stderr

"""Preparing a process for MindSpore, each time in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "module", ["glm3.adapters.mindspore", "glm3.adapters.mindspore.runtime", "glm3.adapters.memory"]
)
def test_importing_does_not_import_mindspore(module):
    done = run(f"import sys, {module}; sys.exit('mindspore' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_preparing_twice_is_harmless_and_keeps_what_the_user_set():
    done = run(
        "import os; os.environ['GLOG_v'] = '4'\n"
        "for name in ('GOMP_SPINCOUNT', 'KMP_BLOCKTIME'): os.environ.pop(name, None)\n"
        "from glm3.adapters.mindspore.runtime import graph_mode, prepare\n"
        "prepare(1); prepare(2)\n"
        "import mindspore as ms\n"
        "with graph_mode(): inside = ms.get_context('mode') == ms.GRAPH_MODE\n"
        "after = ms.get_context('mode') == ms.PYNATIVE_MODE\n"
        "names = 'GLOG_v', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME'\n"
        "print(*(os.environ[name] for name in names), inside, after)\n"
    )
    assert done.stdout.split() == ["4", "1000", "0", "True", "True"], done.stderr


@pytest.mark.parametrize("command", ["'predict', '你好'", "'quantize', '-o', '{folder}/rounded'"])
def test_an_interrupt_while_mindspore_is_imported_ends_the_program_cleanly(command, tmp_path):
    """Half an import would abort the process at its end, with a page of what went wrong in it."""
    done = run(
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "class Interrupt:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'mindspore.common':\n"
        "            sys.meta_path.remove(self)\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from glm3.entrypoints.cli import main\n"
        f"sys.exit(main([{command.format(folder=tmp_path)}]))\n"
    )
    assert done.returncode == 130, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []

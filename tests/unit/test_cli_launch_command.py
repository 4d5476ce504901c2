"""What ``glm3 launch`` makes of the words behind it."""

from __future__ import annotations

import pytest

from glm3.domain.errors import MissingFileError, UsageError
from glm3.domain.run_config import check_for
from glm3.entrypoints.cli.launch_command import resolve_command
from glm3.entrypoints.cli.settings import Settings
from support.cli import REPOSITORY

TINY = str(REPOSITORY / "configs/glm3/glm3_tiny.yaml")


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        (("finetune", "--config", TINY), "finetune"),
        (("eval", "--config", TINY), "eval"),
        (("run", "--config", TINY, "--run_mode", "predict"), "predict"),
        (("run_mindformer.py", "--config", TINY), "finetune"),
    ],
)
def test_the_file_is_judged_for_what_the_ranks_do(words, mode):
    config = resolve_command(words, Settings()).config
    assert config is not None
    assert config.run_mode == mode


def test_an_evaluation_of_copies_needs_no_cut():
    """It shares rows out, whatever the file says about training."""
    config = resolve_command(("eval", "--config", TINY), Settings()).config
    assert config is not None
    assert not config.use_parallel
    check_for(config, device_count=2)


@pytest.mark.parametrize(
    ("words", "error"),
    [((), UsageError), (("dance",), UsageError), (("launch",), UsageError), (("no.py",), MissingFileError)],
)
def test_what_ranks_cannot_run_is_refused(words, error):
    with pytest.raises(error):
        resolve_command(words, Settings())

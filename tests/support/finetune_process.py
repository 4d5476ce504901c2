"""Run a small finetuning in a process of its own: ``python finetune_process.py FOLDER OUTPUT``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / "typings"), str(Path(__file__).parents[1])]
    from support.finetune import train_on_mindspore

    train_on_mindspore(Path(sys.argv[1]), sys.argv[2])

"""``python -m tools.tiny_model``: make the embedded model from nothing, with fixed seeds."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from glm3.adapters.mindspore.kernels.compiler import kernel_library
from glm3.adapters.mindspore.runtime import prepare
from glm3.entrypoints.paths import cache_folder

_CHECKOUT = Path(__file__).parents[2]


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> None:
    """Read the options, build, and say what it cost."""
    parser = argparse.ArgumentParser(prog="python -m tools.tiny_model", description=__doc__)
    parser.add_argument("--out", type=Path, default=_CHECKOUT, help="root of the checkout to write into")
    parser.add_argument("--steps", type=int, default=9000, help="training steps (default: %(default)s)")
    parser.add_argument("--kernels", choices=("auto", "stock"), default="auto", help="kernel set")
    options = parser.parse_args()
    prepare()
    from tools.tiny_model.build import Paths, build
    from tools.tiny_model.train import TrainingPlan

    found = None if options.kernels == "stock" else kernel_library(cache_folder(), report=_say)
    resources = options.out / "src" / "resources"
    paths = Paths(
        model=resources / "tiny",
        rows=resources / "data",
        held_back=options.out / "tests" / "e2e" / "held_back_adverts.json",
    )
    started = time.monotonic()
    loss = build(paths, TrainingPlan(steps=options.steps), found.path if found else None, _say)
    _say(f"final loss {loss:.4f}, {(time.monotonic() - started) / 60:.1f} minutes")


main()

"""Start a model in a fresh process: how long to the first token, and how much memory at a full context.

    python benchmarks/inference_start.py MODEL QUANT THREADS CONTEXT

QUANT is ``-`` for weights as they are stored. Prints one JSON object; ``benchmarks/inference.py`` asks.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()


def memory(*names: str) -> dict[str, float]:
    """Return lines of this process's status in GB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[name].split()[0]) * 1024 / 1e9 for name in names}


def main() -> None:
    model, quant, threads, context = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    import mindspore  # noqa: F401
    from inference_sides import Glm3, drawn_ids, fill, load_options

    imported = time.perf_counter()
    side = Glm3(model, load_options(None if quant == "-" else quant, threads))
    loaded = time.perf_counter()
    context = min(context, side.model.config.seq_length)
    cache = side.model.new_cache(1, context)
    ids = drawn_ids(side.model, context)
    fill(side.model, cache, [0], ids[:16])
    first = time.perf_counter()
    after_load = memory("VmHWM", "RssAnon", "RssFile")
    fill(side.model, cache, [0], ids[16:-8])
    for token in ids[-8:]:
        side.model.extend(cache, [0], [[token]])
    full = memory("VmHWM", "RssAnon", "RssFile")
    print(
        json.dumps(
            {
                "import_s": imported - STARTED,
                "load_s": loaded - imported,
                "first_token_s": first - loaded,
                "weights_gb": side.stored_bytes / 1e9,
                "loaded_gb": after_load,
                "context": context,
                "full_gb": full,
            }
        )
    )


main()

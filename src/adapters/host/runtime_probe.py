"""Test MindSpore in a process of its own: ``python -m glm3.adapters.host.runtime_probe CPU``.

The result is one line of JSON behind :data:`MARK`; a native crash leaves no such line.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from typing import Any

__all__ = ["MARK", "probe"]

MARK = "glm3-runtime-probe:"


def probe(target: str) -> dict[str, Any]:
    """Start MindSpore on ``target``, run its self-test and convert bfloat16 numbers to numpy."""
    result: dict[str, Any] = {"passed": False, "bfloat16": False, "run_check": "", "error": None}
    spoken = io.StringIO()
    try:
        with contextlib.redirect_stdout(spoken):
            import mindspore

            mindspore.set_device(target)
            mindspore.run_check()
        result["passed"] = f"[{target}] successfully" in spoken.getvalue()
    except Exception as error:
        result["error"] = _last_line(error)
    result["run_check"] = spoken.getvalue().strip()
    if result["passed"]:
        try:
            result["bfloat16"] = _bfloat16_converts()
        except Exception as error:
            result["error"] = _last_line(error)
    return result


def _bfloat16_converts() -> bool:
    import mindspore

    numbers = [1.5, -2.0, 0.0078125]
    array = mindspore.Tensor(numbers, mindspore.bfloat16).asnumpy()
    return [float(number) for number in array] == numbers


def _last_line(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip()


if __name__ == "__main__":
    sys.stdout.write(f"\n{MARK}{json.dumps(probe(sys.argv[1]))}\n")

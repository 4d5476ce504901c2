"""The same engine and model without any server, in a process of its own, asked through pipes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from serve_load import QUESTIONS, SYSTEM

__all__ = ["BareEngine"]


class BareEngine:
    """Start a worker, and ask it how many tokens a second the engine makes.

    Args:
        options: of ``glm3 serve``; those of the model and of the engine count.
    """

    def __init__(self, options: Sequence[str]) -> None:
        command = [sys.executable, __file__, *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def throughput(self, streams: int, tokens: int) -> float:
        """Return the tokens a second of so many streams that run together once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{streams} {tokens}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def _work(arguments: list[str]) -> None:
    """Answer lines ``streams tokens`` with the tokens a second of the bare engine."""
    import typer

    from glm3.application.engine import Engine
    from glm3.domain.conversation import Message, Role
    from glm3.domain.engine.limits import limits_within
    from glm3.domain.engine.request import EngineRequest, Event, is_last
    from glm3.domain.generation import GenerationConfig
    from glm3.domain.prompt import PromptBuilder
    from glm3.entrypoints.cli.app import app
    from glm3.entrypoints.cli.options import load_options
    from glm3.entrypoints.container import build_container

    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    given = serve.make_context("serve", arguments).params
    options = load_options(*(given[name] for name in ("kernels", "dtype", "threads", "quant", "kv_cache")))
    loaded = build_container().models().load(given["model"], options)
    limits = limits_within(
        int(given["kv_memory"] * 2**30),
        loaded.model.config,
        options.cache_format,
        slots=given["slots"],
        slot_tokens=given["slot_tokens"],
        lookup=given["lookup"],
    )
    engine = Engine(loaded.model, limits)
    builder = PromptBuilder(loaded.tokenizer)
    prompts = [
        builder.build([Message(Role.SYSTEM, SYSTEM), Message(Role.USER, question)]) for question in QUESTIONS
    ]

    def serve_lines() -> None:
        for line in sys.stdin:
            streams, tokens = map(int, line.split())
            left = threading.Semaphore(0)

            def listen(event: Event, left: threading.Semaphore = left) -> None:
                if is_last(event):
                    left.release()

            asked = GenerationConfig(max_new_tokens=tokens, min_new_tokens=tokens)
            asked = asked.for_vocabulary(loaded.tokenizer.special_tokens)
            started = time.perf_counter()
            for number in range(streams):
                engine.submit(EngineRequest(prompt=prompts[number % len(prompts)], options=asked), listen)
            for _ in range(streams):
                left.acquire()
            print(streams * tokens / (time.perf_counter() - started), flush=True)
        engine.stop()

    threading.Thread(target=serve_lines, daemon=True).start()
    engine.run()


if __name__ == "__main__":
    _work(sys.argv[1:])

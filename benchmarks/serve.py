"""Load a server with concurrent streams: are answers right, does anything stall, what does serving cost?

    python benchmarks/serve.py                                   # the embedded model, 64 streams, 60 s
    python benchmarks/serve.py -m ./chatglm3-6b --streams 8 --seconds 600
    python benchmarks/serve.py --url http://127.0.0.1:8000       # a server that runs already
    python benchmarks/serve.py --overhead --rounds 5             # the server beside its bare engine
    python benchmarks/serve.py --scaling --streams 8             # throughput of 1 stream and of many

Every question is asked alone first. Under load each greedy answer must then be the same text: one that is
another question's answer counts as mixed, any other difference as wrong, a broken stream as lost. A tenth of
the clients leave in the middle of an answer and a tenth read slowly; neither may cost the others anything. A
stall is a gap between two pieces of one answer that a reader in time has seen.

Only the standard library's sockets are used on the client's side: on a small machine a heavier client would
take the cores that it is meant to measure. Figures are for comparison in one run, on a machine that does
nothing else; --overhead takes turns between engine and server and reports medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from attrs import define, field

QUESTIONS = [
    *("你好", "你是谁？", "你会做什么？", "再见", "谢谢你", "今天心情不错", "hello", "写一句话"),
    *("类型#裙*颜色#红色", "类型#上衣*材质#棉", "类型#裤*风格#简约", "类型#裙*图案#碎花"),
]
SYSTEM = "你是一个乐于助人的助手。请用简短的话回答。"
READY_SECONDS = 1800


@define
class Outcome:
    """What the clients saw."""

    counts: Counter[str] = field(factory=Counter)
    first: list[float] = field(factory=list)
    gaps: list[float] = field(factory=list)
    tokens: int = 0


@define
class Piece:
    """One event of a stream, and how long the reader waited for it."""

    text: str
    finish: str | None
    waited: float


class Server:
    """A server to ask, and its process where it is ours."""

    def __init__(self, url: str, pid: int | None = None) -> None:
        self.url = url
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self._process = None if pid is None else psutil.Process(pid)

    @property
    def memory(self) -> int:
        """Resident bytes, or 0 where the process is not ours."""
        return 0 if self._process is None else int(self._process.memory_info().rss)

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[Piece]:
        """Ask, and yield the pieces of the answer as they come."""
        data = json.dumps({**body, "stream": True}).encode()
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
            writer.write(head.encode() + data)
            asked = time.perf_counter()
            status = (await reader.readline()).split()
            if status[1:2] != [b"200"]:
                raise ConnectionError(f"status {status}")
            while line := await reader.readline():
                if not line.startswith(b"data: {"):
                    if line.startswith(b"data: [DONE]"):
                        return
                    continue
                now = time.perf_counter()
                event = json.loads(line[6:])
                if "error" in event:
                    raise ConnectionError(event["error"]["message"])
                choice = event["choices"][0]
                text = choice["delta"].get("content") or ""
                if text or choice["finish_reason"]:
                    yield Piece(text, choice["finish_reason"], now - asked)
                    asked = time.perf_counter()
            raise ConnectionError("the stream has no end")
        finally:
            writer.close()


@contextmanager
def server_of(arguments: argparse.Namespace) -> Iterator[Server]:
    if arguments.url:
        yield Server(arguments.url)
        return
    where = ["--http", "127.0.0.1:0", "--no-grpc"]
    command = [sys.executable, "-m", "glm3", "serve", "-m", arguments.model, *where]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen([*command, *arguments.serve], stdout=output, stderr=output)
        try:
            yield Server(_wait_ready(process, log), process.pid)
        finally:
            process.terminate()
            process.wait(60)


def _wait_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < end:
        found = re.search(r" at (http://[^ ]+)/v1: ", log.read_text())
        if found:
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"the server does not start:\n{log.read_text()}")


def request(question: str, tokens: int) -> dict[str, Any]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    return {"messages": messages, "temperature": 0, "max_tokens": tokens, "min_tokens": tokens}


async def answers_alone(server: Server, tokens: int) -> dict[str, str]:
    answers = {}
    for question in QUESTIONS:
        answers[question] = "".join([piece.text async for piece in server.stream(request(question, tokens))])
    return answers


async def load(server: Server, arguments: argparse.Namespace) -> Outcome:
    """Run the clients for the given time."""
    expected = await answers_alone(server, arguments.tokens)
    outcome = Outcome()
    end = time.monotonic() + arguments.seconds
    memory = [server.memory]

    async def watch() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(arguments.seconds / 10)
            memory.append(server.memory)
            print(f"  {sum(outcome.counts.values())} answers, {memory[-1] / 2**20:.0f} MiB", flush=True)

    async def client(number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < end:
            kind = draw.choices(["reads", "leaves", "slow"], [8, 1, 1])[0]
            await _one_answer(server, draw.choice(QUESTIONS), kind, expected, outcome, arguments.tokens)

    started = time.perf_counter()
    await asyncio.gather(watch(), *(client(number) for number in range(arguments.streams)))
    seconds = time.perf_counter() - started
    print(f"{outcome.tokens / seconds:.1f} pieces/s over {arguments.streams} streams")
    if memory[0]:
        half = memory[len(memory) // 2]
        print(f"memory MiB: first {memory[0] >> 20}, halfway {half >> 20}, last {memory[-1] >> 20}")
    return outcome


async def _one_answer(
    server: Server, question: str, kind: str, expected: dict[str, str], outcome: Outcome, tokens: int
) -> None:
    text, pieces = "", 0
    try:
        async for piece in server.stream(request(question, tokens)):
            (outcome.gaps if pieces else outcome.first).append(piece.waited)
            pieces += 1
            outcome.tokens += 1
            text += piece.text
            if kind == "leaves" and pieces == tokens // 2:
                outcome.counts["left"] += 1
                return
            if kind == "slow":
                await asyncio.sleep(0.05)
    except (OSError, ValueError) as error:
        outcome.counts["lost"] += 1
        print(f"  lost: {error}")
        return
    if text == expected[question]:
        outcome.counts["right"] += 1
    elif text in expected.values():
        outcome.counts["mixed"] += 1
    else:
        outcome.counts["wrong"] += 1
        print(f"  wrong: {question!r}: {text!r}, alone {expected[question]!r}")


def report(outcome: Outcome) -> bool:
    """Print what came out, and tell whether all answers were right."""
    counts = ", ".join(
        f"{name} {outcome.counts[name]}" for name in ("right", "left", "wrong", "lost", "mixed")
    )
    print(f"answers: {counts}")
    for name, values in (("time to first piece", outcome.first), ("gap between pieces", outcome.gaps)):
        ordered = sorted(values)
        at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99, 1)]
        print(f"{name}: median {at[0] * 1e3:.0f} ms, 99% {at[1] * 1e3:.0f} ms, longest {at[2] * 1e3:.0f} ms")
    return not any(outcome.counts[name] for name in ("wrong", "lost", "mixed"))


async def throughput(server: Server, streams: int, tokens: int) -> float:
    """Return the tokens a second of so many streams that run together once."""

    async def one(number: int) -> None:
        async for _ in server.stream(request(QUESTIONS[number % len(QUESTIONS)], tokens)):
            pass

    started = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(streams)))
    return streams * tokens / (time.perf_counter() - started)


class BareEngine:
    """The same engine and model in a process of its own, without any server; asked through pipes."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        command = [sys.executable, __file__, "--engine-worker", "-m", arguments.model]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def throughput(self, streams: int, tokens: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{streams} {tokens}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def engine_worker(model_name: str) -> None:
    """Answer lines ``streams tokens`` with the tokens a second of the bare engine."""
    from glm3.application.engine import Engine
    from glm3.domain.conversation import Message, Role
    from glm3.domain.engine.limits import EngineLimits, slots_within
    from glm3.domain.engine.request import EngineRequest, Event, Produced
    from glm3.domain.generation import GenerationConfig
    from glm3.domain.prompt import PromptBuilder
    from glm3.entrypoints.container import build_container

    loaded = build_container().models().load(model_name)
    context = loaded.model.config.seq_length
    slots = slots_within(4 * 2**30, loaded.model.config, context)
    engine = Engine(loaded.model, EngineLimits(slots=slots, slot_tokens=context))
    builder = PromptBuilder(loaded.tokenizer)
    prompts = [
        builder.build([Message(Role.SYSTEM, SYSTEM), Message(Role.USER, question)]) for question in QUESTIONS
    ]

    def serve_lines() -> None:
        for line in sys.stdin:
            streams, tokens = map(int, line.split())
            left = threading.Semaphore(0)

            def listen(event: Event, left: threading.Semaphore = left) -> None:
                if isinstance(event, Produced) and event.finish_reason is not None:
                    left.release()

            options = GenerationConfig(max_new_tokens=tokens, min_new_tokens=tokens)
            options = options.for_vocabulary(loaded.tokenizer.special_tokens)
            started = time.perf_counter()
            for number in range(streams):
                engine.submit(EngineRequest(prompt=prompts[number % len(prompts)], options=options), listen)
            for _ in range(streams):
                left.acquire()
            print(streams * tokens / (time.perf_counter() - started), flush=True)
        engine.stop()

    threading.Thread(target=serve_lines, daemon=True).start()
    engine.run()


def overhead(server: Server, arguments: argparse.Namespace) -> None:
    """Compare the server with its bare engine, turn by turn."""
    bare = BareEngine(arguments)
    try:
        pairs = []
        for number in range(arguments.rounds + 1):
            engine = bare.throughput(arguments.streams, arguments.tokens)
            served = asyncio.run(throughput(server, arguments.streams, arguments.tokens))
            if number:  # the first round warms both up
                pairs.append((engine, served))
                print(f"  engine {engine:.1f}, server {served:.1f} tokens/s, ratio {served / engine:.3f}")
    finally:
        bare.close()
    engines, servers = zip(*pairs, strict=True)
    ratio = statistics.median(served / engine for engine, served in pairs)
    print(
        f"{arguments.streams} streams: engine {statistics.median(engines):.1f}, "
        f"server {statistics.median(servers):.1f} tokens/s, ratio {ratio:.3f}"
    )


def scaling(server: Server, arguments: argparse.Namespace) -> None:
    """Compare one stream with many, turn by turn."""
    ratios = []
    for number in range(arguments.rounds + 1):
        one = asyncio.run(throughput(server, 1, arguments.tokens))
        many = asyncio.run(throughput(server, arguments.streams, arguments.tokens))
        if number:
            ratios.append(many / one)
            print(f"  1 stream {one:.1f}, {arguments.streams} streams {many:.1f}, ratio {many / one:.2f}")
    print(f"{arguments.streams} streams over one: {statistics.median(ratios):.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", default="tiny")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=48, help="length of every answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--engine-worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("serve", nargs="*", help="options for glm3 serve, behind --")
    arguments = parser.parse_args()
    if arguments.engine_worker:
        engine_worker(arguments.model)
        return 0
    with server_of(arguments) as server:
        if arguments.overhead:
            overhead(server, arguments)
        elif arguments.scaling:
            scaling(server, arguments)
        else:
            print(f"load average {os.getloadavg()[0]:.1f}")
            return 0 if report(asyncio.run(load(server, arguments))) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Clients of every kind at once, and a check of every answer against the one the same question gets alone."""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from attrs import define, field, frozen
from serve_client import CHAT, Footprint, Server

SYSTEM = "你是一个乐于助人的助手。请用简短的话回答。"
QUESTIONS = [
    *("你好", "你是谁？", "你会做什么？", "再见", "谢谢你", "今天心情不错", "hello", "写一句话"),
    *("类型#裙*颜色#红色", "类型#上衣*材质#棉", "类型#裤*风格#简约", "类型#裙*图案#碎花"),
    "请记住：" + "，".join(f"第{number}件是类型#裙*颜色#红色" for number in range(12)) + "。有几件？",
]
FOLLOW_UP = "再说一遍"
KINDS = {"reads": 6, "whole": 1, "talks": 1, "leaves": 1, "slow": 1}
"""Of ten clients six read a stream; one takes its answer whole, one asks a second question in the same
conversation, one leaves in the middle, and one reads slowly."""


@define
class Outcome:
    """What the clients saw. ``gaps`` are those of readers in time."""

    counts: Counter[str] = field(factory=Counter)
    first: list[float] = field(factory=list)
    gaps: list[float] = field(factory=list)
    tokens: int = 0
    lag: float = 0.0
    step: float = 0.0
    footprints: list[Footprint] = field(factory=list)


@frozen
class Alone:
    """The answers that questions get when nobody else asks: the first, and the one to the follow-up."""

    first: dict[str, str]
    second: dict[str, str]

    def belongs_to_another(self, text: str) -> bool:
        return text in self.first.values() or text in self.second.values()


def request(tokens: int, question: str, *turns: str) -> dict[str, Any]:
    """Return a question, or the next one behind the given turns; the answer has exactly so many tokens."""
    messages = [{"role": "system", "content": SYSTEM}]
    for index, text in enumerate((question, *turns)):
        messages.append({"role": ("user", "assistant")[index % 2], "content": text})
    return {"messages": messages, "temperature": 0, "max_tokens": tokens, "min_tokens": tokens}


async def ask_alone(server: Server, tokens: int) -> Alone:
    first = {question: await server.whole(request(tokens, question)) for question in QUESTIONS}
    second = {
        question: await server.whole(request(tokens, question, answer, FOLLOW_UP))
        for question, answer in first.items()
    }
    return Alone(first, second)


async def load(server: Server, arguments: argparse.Namespace) -> Outcome:
    """Run the clients for the given time."""
    load = _Load(server, arguments, await ask_alone(server, arguments.tokens))
    return await load.run()


class _Load:
    def __init__(self, server: Server, arguments: argparse.Namespace, alone: Alone) -> None:
        self._server = server
        self._streams, self._tokens = arguments.streams, arguments.tokens
        self._seconds, self._stuck, self._idle = arguments.seconds, arguments.stuck, arguments.idle
        self._alone = alone
        self._outcome = Outcome()
        self._end = 0.0

    async def run(self) -> Outcome:
        steps = await self._steps()
        started = time.monotonic()
        self._end = started + self._seconds
        others = [asyncio.create_task(each) for each in (self._watch(), self._watch_own_delay())]
        others += [asyncio.create_task(self._never_read()) for _ in range(self._stuck)]
        others += [asyncio.create_task(self._say_nothing()) for _ in range(self._idle)]
        try:
            await asyncio.gather(*(self._client(number) for number in range(self._streams)))
        finally:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        seconds = time.monotonic() - started
        total, count = (after - before for after, before in zip(await self._steps(), steps, strict=True))
        self._outcome.step = total / max(count, 1)
        print(f"{self._outcome.tokens / seconds:.1f} pieces/s over {self._streams} streams")
        return self._outcome

    async def _client(self, number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < self._end:
            (kind,) = draw.choices(list(KINDS), list(KINDS.values()))
            question = draw.choice(QUESTIONS)
            try:
                await self._ask(question, kind)
            except (OSError, ValueError, KeyError) as error:
                self._outcome.counts["lost"] += 1
                print(f"  lost ({kind}): {error!r}")

    async def _ask(self, question: str, kind: str) -> None:
        expected = self._alone.first[question]
        body = request(self._tokens, question)
        if kind == "whole":
            self._judge(question, await self._server.whole(body), expected)
            return
        text = await self._read(body, kind)
        if text is None:
            self._outcome.counts["left"] += 1
            return
        self._judge(question, text, expected)
        if kind == "talks" and text == expected:
            text = await self._read(request(self._tokens, question, text, FOLLOW_UP), kind)
            self._judge(f"{question} {FOLLOW_UP}", str(text), self._alone.second[question])

    async def _read(self, body: dict[str, Any], kind: str) -> str | None:
        """Return the answer, or None if the client has left."""
        texts: list[str] = []
        stream = self._server.stream(body)
        try:
            async for piece in stream:
                if kind != "slow":
                    (self._outcome.gaps if texts else self._outcome.first).append(piece.waited)
                texts.append(piece.text)
                self._outcome.tokens += 1
                if kind == "leaves" and len(texts) == self._tokens // 2:
                    return None
                if kind == "slow":
                    await asyncio.sleep(0.05)
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        return "".join(texts)

    def _judge(self, question: str, text: str, expected: str) -> None:
        if text == expected:
            self._outcome.counts["right"] += 1
            return
        kind = "mixed" if self._alone.belongs_to_another(text) else "wrong"
        self._outcome.counts[kind] += 1
        print(f"  {kind}: {question!r}: {text!r}, alone {expected!r}")

    async def _never_read(self) -> None:
        """Ask for long answers and take nothing of them until the server gives up."""
        body = {**request(self._tokens, QUESTIONS[0]), "n": 8, "stream": True, "logprobs": True}
        while True:
            try:
                _, writer = await self._server.ask(CHAT, body)
            except OSError:
                await asyncio.sleep(1)
                continue
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            try:
                await asyncio.sleep(90)
            finally:
                writer.transport.abort()

    async def _say_nothing(self) -> None:
        """Hold a connection open; open another when the server closes it."""
        while True:
            try:
                reader, writer = await self._server.connect()
            except OSError:
                await asyncio.sleep(1)
                continue
            try:
                await reader.read()
            except OSError:
                pass
            finally:
                writer.close()

    async def _watch(self) -> None:
        pause = max(self._seconds / 60, 1.0)
        for number in range(10**9):
            if (footprint := self._server.footprint()) is not None:
                self._outcome.footprints.append(footprint)
                if number % 6 == 0:
                    answers = sum(self._outcome.counts.values())
                    print(f"  {answers} answers, {footprint.memory / 2**20:.0f} MiB", flush=True)
            await asyncio.sleep(pause)

    async def _watch_own_delay(self) -> None:
        """Note by how much this process itself is late: its own delay is not the server's."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.02)
            self._outcome.lag = max(self._outcome.lag, time.perf_counter() - before - 0.02)

    async def _steps(self) -> tuple[float, float]:
        """Return the seconds that the model has worked, and the number of its steps."""
        page = await self._server.get("/metrics")
        found = [re.search(rf"^glm3_step_seconds_{name} (\S+)", page, re.M) for name in ("sum", "count")]
        return tuple(0.0 if each is None else float(each[1]) for each in found)  # type: ignore[return-value]


def report(outcome: Outcome, most_stall: float, most_growth: float) -> bool:
    """Print what came out, and tell whether all of it is as it should be."""
    names = ("right", "left", "wrong", "lost", "mixed")
    print("answers: " + ", ".join(f"{name} {outcome.counts[name]}" for name in names))
    for name, values in (("time to first piece", outcome.first), ("gap between pieces", outcome.gaps)):
        ordered = sorted(values) or [0.0]
        at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99, 1)]
        print(f"{name}: median {at[0] * 1e3:.0f} ms, 99% {at[1] * 1e3:.0f} ms, longest {at[2] * 1e3:.0f} ms")
    stalls = sum(gap > most_stall + outcome.step for gap in outcome.gaps)
    print(
        f"stalls over {most_stall:g} s beside the model's step: {stalls}; a step takes "
        f"{outcome.step * 1e3:.0f} ms; the clients themselves were late by up to {outcome.lag * 1e3:.0f} ms"
    )
    is_flat = _report_growth(outcome.footprints, most_growth)
    wrong = any(outcome.counts[name] for name in ("wrong", "lost", "mixed"))
    return is_flat and not (wrong or stalls) and outcome.counts["right"] > 0


def _report_growth(footprints: Sequence[Footprint], most: float) -> bool:
    """Compare the middle quarter of the run with its last one: the beginning still fills caches."""
    if len(footprints) < 8:
        return True
    quarter = len(footprints) // 4
    middle, last = footprints[quarter : 2 * quarter], footprints[-quarter:]
    early, late = (statistics.median(each.memory for each in part) for part in (middle, last))
    growth = 100 * (late / early - 1)
    first = footprints[0]
    print(
        f"memory MiB: at first {first.memory / 2**20:.0f}, second quarter {early / 2**20:.0f}, "
        f"last quarter {late / 2**20:.0f} ({growth:+.1f}%); "
        f"files {first.files} to {footprints[-1].files}, threads {first.threads} to {footprints[-1].threads}"
    )
    return growth <= most

"""Load a server with concurrent streams: are answers right, does anything stall, what does serving cost?

    python benchmarks/serve.py                                   # the embedded model, 64 streams, 60 s
    python benchmarks/serve.py --seconds 600 --stuck 4 --idle 500
    python benchmarks/serve.py -m ./chatglm3-6b --streams 8 -- --quant int4 --slots 8 --slot-tokens 1024
    python benchmarks/serve.py --url http://127.0.0.1:8000       # a server that runs already
    python benchmarks/serve.py --overhead --rounds 5             # the server beside its bare engine
    python benchmarks/serve.py --scaling --streams 8             # throughput of 1 stream and of many

Every question is asked alone first, and so is a second one behind its answer. Under load each greedy answer
must then be the same text: one that is another question's answer counts as mixed, any other difference as
wrong, a request without a complete answer as lost. Of ten clients six read a stream, one takes its answer
whole, one goes on with a second question, one leaves in the middle, and one reads slowly; ``--stuck`` adds
clients that never read, ``--idle`` connections on which nobody asks. None of them may cost the others
anything. A stall is a gap between two pieces of one answer, beside the model's own step, that a reader in
time has seen. The exit code is 1 when anything of this fails, or memory grows by more than ``--growth``
percent from the second quarter of the time to the last.

Figures are for comparison in one run, on a machine that does nothing else: the clients take a core of their
own. --overhead and --scaling take turns between both sides and report medians.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time

from serve_client import Server, server_of
from serve_engine import BareEngine
from serve_load import QUESTIONS, load, report, request


async def throughput(server: Server, streams: int, tokens: int) -> float:
    """Return the tokens a second of so many streams that run together once."""

    async def one(number: int) -> None:
        async for _ in server.stream(request(tokens, QUESTIONS[number % len(QUESTIONS)])):
            pass

    started = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(streams)))
    return streams * tokens / (time.perf_counter() - started)


def overhead(server: Server, arguments: argparse.Namespace) -> None:
    """Compare the server with its bare engine, turn by turn."""
    bare = BareEngine(["-m", arguments.model, *arguments.serve])
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
    parser.add_argument("--token", default=os.environ.get("GLM3_TOKEN"), help="for --url; default GLM3_TOKEN")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=48, help="length of every answer")
    parser.add_argument("--stuck", type=int, default=2, help="clients that never read")
    parser.add_argument("--idle", type=int, default=100, help="connections on which nobody asks")
    parser.add_argument(
        "--stall", type=float, default=2.0, help="seconds between two pieces that are too long"
    )
    parser.add_argument("--growth", type=float, default=5.0, help="percent of memory that are too much")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("serve", nargs="*", help="options for glm3 serve, behind --")
    arguments = parser.parse_args()
    with server_of(arguments) as server:
        if arguments.overhead:
            overhead(server, arguments)
        elif arguments.scaling:
            scaling(server, arguments)
        else:
            print(f"load average {os.getloadavg()[0]:.1f}")
            outcome = asyncio.run(load(server, arguments))
            return 0 if report(outcome, arguments.stall, arguments.growth) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

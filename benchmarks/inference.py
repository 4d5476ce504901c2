r"""Measure answering (decode, prefill, batches, second turns, look-up, serving, start, memory) beside peers.

    python benchmarks/inference.py                                    # the embedded model, every section
    python benchmarks/inference.py -m ./chatglm3-6b --quant int4 --json int4.json \
        --llama-bench ./llama-bench --peer Q4_0=q4_0.gguf
    python benchmarks/inference.py -m ./chatglm3-6b --quant int4 --section prefill --torch

Whoever is measured takes turns with the others, round by round, and who begins a round changes; a ratio is
the median over rounds of the ratios within a round, above 1 where glm3 is faster. What the memory can be
read at is measured in every round too, what dot products the processor makes before each prompt. Figures
are for comparison in one run, on a machine that does nothing else. A section that fails is told and leaves
the others their results; --json is written after each result.

Look-up needs text that repeats, which random weights do not write: there the passes are the model's own and
the chosen ids those of a given text.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inference_bench import Bench, ratio
from inference_forced import ForcedEngine, ForcedModel, copying_text, misleading_text
from inference_sides import drawn_ids, fill, seconds

from glm3.adapters.mindspore.kernels.cores import physical_cores
from glm3.domain.decoding import generate
from glm3.domain.generation import GenerationConfig

Record = dict[str, Any]


def decode(bench: Bench) -> Iterator[Record]:
    tokens = bench.arguments.tokens
    medians, ratios, read = bench.compare(lambda side: side.decode(tokens))
    per_token = medians["glm3"] / tokens
    gb = bench.glm3.read_bytes / 1e9
    limits = {"weights_gb": gb, "read_gb_per_s": read, "of_read": gb / per_token / read} if gb else {}
    yield {
        "case": f"decode {tokens}",
        "ms": 1000 * per_token,
        "tokens_per_s": {name: tokens / value for name, value in medians.items()},
        "ratios": ratios,
        **limits,
    }


def prefill(bench: Bench) -> Iterator[Record]:
    for tokens in bench.arguments.prompt:
        bits = bench.glm3.bits
        peak = None if bits is None else bench.roofline.gop_per_s(bits, tokens)
        medians, ratios, _ = bench.compare(lambda side, tokens=tokens: side.prefill(tokens))
        operations = 2 * bench.glm3.products * tokens / 1e9
        limits = (
            {} if peak is None else {"peak_gop_per_s": peak, "of_peak": operations / medians["glm3"] / peak}
        )
        yield {
            "case": f"prefill {tokens}",
            "ms": 1000 * medians["glm3"],
            "tokens_per_s": {name: tokens / value for name, value in medians.items()},
            "ratios": ratios,
            **limits,
        }


def batch(bench: Bench) -> Iterator[Record]:
    tokens, rows = bench.arguments.tokens, (1, 2, 4, 8)
    found = bench.alternate(*(lambda rows=each: bench.glm3.batch(rows, tokens) for each in rows))
    for count, times in zip(rows, found, strict=True):
        yield {
            "case": f"batch {count}",
            "ms": 1000 * statistics.median(times) / tokens,
            "tokens_per_s": {"glm3": count * tokens / statistics.median(times)},
            "ratios": {"one sequence": count * ratio(found[0], times)},
        }


def turn(bench: Bench) -> Iterator[Record]:
    model, new = bench.glm3.model, 16
    history = min(bench.arguments.history, model.config.seq_length - new)
    ids = drawn_ids(model, history + new)
    cache = model.new_cache(1, history + new)
    fill(model, cache, [0], ids[:history])

    def second() -> float:
        cache.truncate(0, history)
        return seconds(lambda: model.extend(cache, [0], [ids[history:]]))

    whole, added = bench.alternate(lambda: bench.glm3.prefill(history + new), second)
    yield {
        "case": f"second turn {history} + {new}",
        "ms": 1000 * statistics.median(added),
        "tokens_per_s": {},
        "ratios": {"computing all": ratio(whole, added)},
    }


def lookup(bench: Bench) -> Iterator[Record]:
    """Decode given texts behind a prompt, with look-up and without, and the model's own answer."""
    model, tokens = bench.glm3.model, 4 * bench.arguments.tokens
    prompt = drawn_ids(model, max(64, tokens // 2), seed=1)
    texts = {
        "copies": copying_text(prompt, tokens),
        "misleading": misleading_text(tokens),
        "own answer": None,
    }
    for name, text in texts.items():
        chosen = model if text is None else ForcedModel(model, [*prompt, *text])
        answers: dict[bool, Any] = {}

        def answer(look: bool, chosen: Any = chosen, answers: dict[bool, Any] = answers) -> float:
            options = GenerationConfig(max_new_tokens=tokens, lookup=look)

            def work() -> None:
                answers[look] = generate(chosen, [prompt], options)[0].ids

            return seconds(work)

        plain, looked_up = bench.alternate(lambda: answer(False), lambda: answer(True))
        yield {
            "case": f"look-up, {name}",
            "ms": 1000 * statistics.median(looked_up) / tokens,
            "tokens_per_s": {"glm3": tokens / statistics.median(looked_up)},
            "ratios": {"plain": ratio(plain, looked_up)},
            "identical": answers[False] == answers[True],
        }


def served(bench: Bench) -> Iterator[Record]:
    """Let the engine copy from a prompt for some streams at once, with look-up and without."""
    model, tokens = bench.glm3.model, 4 * bench.arguments.tokens
    prompt = drawn_ids(model, max(64, tokens // 2), seed=1)
    for streams in (1, 2, 4):
        engines = [
            ForcedEngine(model, prompt, copying_text(prompt, tokens), streams, lookup=look)
            for look in (False, True)
        ]
        plain, looked_up = bench.alternate(*(engine.answer for engine in engines))
        yield {
            "case": f"served {streams}, copies",
            "ms": 1000 * statistics.median(looked_up) / tokens,
            "tokens_per_s": {"glm3": streams * tokens / statistics.median(looked_up)},
            "ratios": {"plain": ratio(plain, looked_up)},
            "identical": engines[False].answers == engines[True].answers,
            "passes": {"plain": engines[False].passes, "look-up": engines[True].passes},
        }


def start(bench: Bench) -> Iterator[Record]:
    """Load and answer in fresh processes; files are in the page cache behind the first."""
    a = bench.arguments
    program = Path(__file__).with_name("inference_start.py")
    command = [sys.executable, str(program), a.model, a.quant or "-", str(a.threads), str(a.context)]
    runs = []
    for _ in range(min(3, a.rounds)):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-500:])
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    best = min(runs, key=lambda run: run["load_s"] + run["first_token_s"])
    yield {
        "case": "load, first token",
        "ms": 1000 * (best["load_s"] + best["first_token_s"]),
        "tokens_per_s": {},
        "ratios": {},
        **best,
    }


SECTIONS = {section.__name__: section for section in (decode, prefill, batch, turn, lookup, served, start)}


def line(record: Record) -> str:
    """Return a record as a row of the table."""
    if "failed" in record:
        return f"{record['section']}: failed: {record['failed']}"
    notes = [f"{value:.2f} x {name}" for name, value in record["ratios"].items()]
    notes += [f"{record[key]:.2f} {key.replace('_', ' ')}" for key in ("of_read", "of_peak") if key in record]
    if "identical" in record:
        notes.append("identical" if record["identical"] else "DIFFERENT IDS")
    if "passes" in record:
        notes.append(", ".join(f"{count} passes {name}" for name, count in record["passes"].items()))
    if "full_gb" in record:
        gb = record["full_gb"]
        notes.append(
            f"weights {record['weights_gb']:.2f} GB; peak {gb['VmHWM']:.2f} GB at {record['context']}"
            f" tokens, files {gb['RssFile']:.2f} GB of it"
        )
    speed = record["tokens_per_s"].get("glm3")
    return (
        f"{record['case']:<24} {record['ms']:10.2f} {'' if speed is None else f'{speed:.1f}':>9}  "
        + "; ".join(notes)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", default="tiny", help="a folder, a YAML file or a name")
    parser.add_argument("--quant", help="int4, int8, int4-g32, ...; default: as stored, in float32")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=16, help="decoded in one measurement")
    parser.add_argument("--prompt", type=int, action="append", help="prefilled; default: 128 and 512")
    parser.add_argument("--history", type=int, default=1024, help="tokens before a second turn")
    parser.add_argument("--context", type=int, default=2048, help="tokens at which memory is read")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--llama-bench", type=Path, help="llama.cpp's program of that name")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=GGUF", help="for llama-bench")
    parser.add_argument(
        "--torch", action="store_true", help="compare with torch, which needs bfloat16 weights"
    )
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter that has torch")
    parser.add_argument("--json", type=Path, help="write the results here too")
    arguments = parser.parse_args()
    arguments.prompt = arguments.prompt or [128, 512]
    if arguments.peer and arguments.llama_bench is None:
        parser.error("--peer needs --llama-bench")
    bench = Bench(arguments)
    setting = {"model": arguments.model, "quant": arguments.quant, "threads": arguments.threads}
    results: list[Record] = []

    def tell(record: Record) -> None:
        results.append({**setting, **record})
        print(line(record), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    print(f"{'work':<24} {'ms':>10} {'tokens/s':>9}  ratios", flush=True)
    try:
        for name in arguments.section or SECTIONS:
            try:
                for record in SECTIONS[name](bench):
                    tell({"section": name, **record})
            except Exception as error:
                traceback.print_exc()
                tell({"section": name, "failed": f"{type(error).__name__}: {error}"})
    finally:
        bench.close()
    if any("failed" in record for record in results):
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Print what was found in a data set."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from glm3.entrypoints.cli.output import answer

if TYPE_CHECKING:
    from glm3.domain.training.data_report import DataReport

__all__ = ["print_report", "report_to_json"]

_BAR = 40
_KINDS = 10


def print_report(report: DataReport) -> None:
    """Print a report for people; bars are coloured at a terminal and made of ``#`` elsewhere."""
    layout = report.layout
    answer(f"{report.path}: {report.rows + report.faulty} rows, format {layout.format}, {_limits(report)}")
    for name, number, remark in _counts(report):
        answer(f"  {name:<18}{number:>9}{remark and f'  {remark}'}")
    if report.lengths is not None:
        answer(f"\ntokens in a row, before cutting (mean {report.lengths.mean:.1f})")
        _print_histogram(report)
        answer("\nlimits that cut fewer rows")
        for limits in report.suggestions:
            keys = ", ".join(f"{key}: {value}" for key, value in limits.keys.items())
            answer(f"  {limits.share:>4.0%}  {keys}")
    _print_faults(report)


def _limits(report: DataReport) -> str:
    layout = report.layout
    if layout.format == "dialogue":
        return f"max_seq_length {layout.max_seq_length}"
    parts = f"{layout.max_source_length} + {layout.max_target_length} + 1"
    return f"{layout.pair_layout} layout, seq_length {layout.seq_length} = {parts}"


def _counts(report: DataReport) -> list[tuple[str, int, str]]:
    def part(number: int) -> str:
        return f"{number / report.rows:.1%} of the rows" if number else ""

    doubles = ", ".join(f"{line} (as {earlier})" for line, earlier in report.duplicate_lines)
    masked = ", ".join(map(str, report.nothing_learned_lines))
    return [
        ("bad rows", report.faulty, ""),
        ("blank lines", report.blank_lines, "passed over" if report.blank_lines else ""),
        ("answers cut", report.answers_cut, part(report.answers_cut)),
        ("prompts cut", report.prompts_cut, part(report.prompts_cut)),
        ("nothing learned", report.nothing_learned, f"lines {masked}" if masked else ""),
        ("duplicates", report.duplicates, f"lines {doubles}" if doubles else ""),
        ("learned tokens", report.supervised_tokens, ""),
    ]


def _print_histogram(report: DataReport) -> None:
    lengths = report.lengths
    assert lengths is not None  # noqa: S101  # the caller looked
    bins = lengths.histogram()
    most = max(part.rows for part in bins)
    width = len(str(bins[-1].high))
    coloured = sys.stdout.isatty()
    if coloured:
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False)
    for part in bins:
        label = f"  {part.low:>{width}}-{part.high:<{width}}  "
        size = -(-part.rows * _BAR // most)
        cut = part.low > report.layout.seq_length
        if not coloured:
            answer(f"{label}{'#' * size}{' ' if size else ''}{part.rows}{'  over the limit' if cut else ''}")
            continue
        bar = Text("━" * size, style="red" if cut else "green")
        console.print(Text.assemble(label, bar, " " if size else "", str(part.rows)))
    if coloured and lengths.longest > report.layout.seq_length:
        console.print(Text("  red: longer than the limit", style="red"))


def _print_faults(report: DataReport) -> None:
    if not report.faulty:
        return
    answer("\nbad rows")
    for kind, number in list(report.fault_kinds.items())[:_KINDS]:
        answer(f"  {number} x {kind}")
    for fault in report.faults:
        answer(str(fault))
    if report.faulty > len(report.faults):
        answer(f"... and {report.faulty - len(report.faults)} more; --max-faults shows them")


def report_to_json(report: DataReport) -> dict[str, Any]:
    """Return a report as plain values."""
    layout, lengths = report.layout, report.lengths
    return {
        "path": str(report.path),
        "format": layout.format.value,
        "layout": layout.pair_layout.value,
        "seq_length": layout.seq_length,
        "usable": report.usable,
        "rows": report.rows,
        "faulty": report.faulty,
        "fault_kinds": dict(report.fault_kinds),
        "faults": [
            {
                "line": fault.line,
                "field": fault.field,
                "reason": fault.message,
                "expected": None if fault.expected is None else str(fault.expected),
                "found": None if fault.found is None else str(fault.found),
                "hint": fault.hint,
            }
            for fault in report.faults
        ],
        "blank_lines": report.blank_lines,
        "answers_cut": report.answers_cut,
        "prompts_cut": report.prompts_cut,
        "nothing_learned": report.nothing_learned,
        "nothing_learned_lines": list(report.nothing_learned_lines),
        "duplicates": report.duplicates,
        "duplicate_lines": [list(pair) for pair in report.duplicate_lines],
        "learned_tokens": report.supervised_tokens,
        "lengths": None
        if lengths is None
        else {
            "mean": round(lengths.mean, 2),
            "longest": lengths.longest,
            "histogram": [[part.low, part.high, part.rows] for part in lengths.histogram()],
        },
        "suggestions": [{"share": limits.share, **limits.keys} for limits in report.suggestions],
    }

"""Print rows token by token, with what is learned set off."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from glm3.entrypoints.cli.output import answer

if TYPE_CHECKING:
    from rich.text import Text

    from glm3.application.preview_data import PreviewedRow, PreviewedToken
    from glm3.domain.training.row_layout import RowLayout

__all__ = ["print_preview", "visible"]

OPEN, CLOSE = "⟦", "⟧"
_SIGNS = {"\n": "\\n", "\t": "\\t", "\r": "\\r", " ": "␣"}


def visible(text: str) -> str:
    """Write a piece so that spaces and control characters are seen and do nothing."""
    return "".join(
        _SIGNS.get(sign) or (sign if sign.isprintable() else f"\\u{ord(sign):04x}") for sign in text
    )


def print_preview(path: Path, layout: RowLayout, rows: Sequence[PreviewedRow], total: int) -> None:
    """Print rows and the legend."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    answer(f"{path}: {len(rows)} of {total} rows, format {layout.format}, seq_length {layout.seq_length}")
    if coloured:
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False)
        console.print(Text.assemble("piece", ("/id", "dim"), "; ", ("learned", "bold green"), ", given"))
    else:
        answer(f"piece/id; {OPEN}learned{CLOSE}, given")
    for row in rows:
        answer(f"\n{_headline(path, row)}")
        if coloured:
            console.print(Text(" ").join(_coloured(token) for token in row.tokens))
        elif row.tokens:
            answer(_plain(row.tokens))


def _headline(path: Path, row: PreviewedRow) -> str:
    encoded = row.encoded
    if encoded is None:
        return str(row.fault)
    text = f"{path}:{row.line}: {encoded.length} tokens, {sum(token.learned for token in row.tokens)} learned"
    if encoded.truncated:
        text += f"; cut from {encoded.wanted}"
    return text if encoded.learns else f"{text}; teaches nothing"


def _plain(tokens: Sequence[PreviewedToken]) -> str:
    runs = groupby(tokens, lambda token: token.learned)
    texts = ((learned, " ".join(f"{visible(t.text)}/{t.id}" for t in run)) for learned, run in runs)
    return " ".join(f"{OPEN}{text}{CLOSE}" if learned else text for learned, text in texts)


def _coloured(token: PreviewedToken) -> Text:
    from rich.text import Text

    style = "bold green" if token.learned else ""
    return Text.assemble((visible(token.text), style), (f"/{token.id}", "dim green" if style else "dim"))

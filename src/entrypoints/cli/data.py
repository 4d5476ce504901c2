"""``glm3 data``: check rows, look at them, and format ToolAlpaca's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glm3.entrypoints.cli.command import Command, settings_of
from glm3.entrypoints.cli.data_source import Format, RowOptions, open_source
from glm3.entrypoints.cli.finetune import Layout
from glm3.entrypoints.cli.output import answer, answer_json, note

__all__ = ["app"]

CHECK_EPILOG = """\
\b
Examples:
  glm3 data check AdvertiseGen/train.json
  glm3 data check mine.jsonl --max-source-length 128 --max-target-length 383 -m ./chatglm3-6b
  glm3 data check --config configs/glm3/glm3_tiny.yaml
  glm3 data check tool_alpaca.jsonl --format dialogue --json
"""
PREVIEW_EPILOG = """\
\b
Examples:
  glm3 data preview builtin:adverts-train
  glm3 data preview tool_alpaca.jsonl -n 1 --skip 10
"""
FORMAT_EPILOG = """\
\b
Examples:
  glm3 data format-tool-alpaca --path ToolAlpaca/data/train_data.json
"""

app = typer.Typer(help="Check and look at data sets.", no_args_is_help=True, rich_markup_mode=None)

File = Annotated[
    str | None,
    typer.Argument(metavar="[FILE]", help="JSON Lines, a JSON array, or builtin:NAME; else the YAML's."),
]
Config = Annotated[
    str | None, typer.Option("--config", metavar="YAML", help="Take format, limits and tokenizer from a run.")
]
Eval = Annotated[bool, typer.Option("--eval", help="Take eval_dataset of the YAML, not train_dataset.")]
RowFormatOption = Annotated[
    Format | None, typer.Option("--format", help="Kind of rows. [default: the YAML's, or told by the first]")
]
LayoutOption = Annotated[
    Layout, typer.Option(help="Rows of prompt and answer: bare as in the model card, or as a chat.")
]
Columns = Annotated[
    str | None, typer.Option(metavar="PROMPT,ANSWER", help="Fields of adgen rows. [default: content,summary]")
]
MaxSource = Annotated[int | None, typer.Option(min=1, help="Longest prompt in tokens. [default: 64]")]
MaxTarget = Annotated[int | None, typer.Option(min=1, help="Longest answer in tokens. [default: 127]")]
MaxSeq = Annotated[int | None, typer.Option(min=1, help="Longest dialogue in tokens. [default: 2048]")]
Model = Annotated[
    str | None, typer.Option("-m", "--model", metavar="MODEL", help="Whose tokenizer. [default: tiny]")
]
TokenizerFile = Annotated[
    Path | None, typer.Option("--tokenizer", metavar="PATH", help="A tokenizer.model, in place of a model.")
]


@app.command("check", cls=Command, epilog=CHECK_EPILOG)
def check(
    context: typer.Context,
    file: File = None,
    config: Config = None,
    eval_rows: Eval = False,
    row_format: RowFormatOption = None,
    layout: LayoutOption = Layout.bare,
    columns: Columns = None,
    max_source_length: MaxSource = None,
    max_target_length: MaxTarget = None,
    max_seq_length: MaxSeq = None,
    model: Model = None,
    tokenizer: TokenizerFile = None,
    max_faults: Annotated[int, typer.Option(min=0, help="Bad rows to name; all are counted.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Read and encode every row as training would, and report what is wrong, cut or double.

    Ends with exit code 1 if a row cannot be used, or if there is nothing to learn in any of them.
    """
    from glm3.application.check_data import CheckRequest, DataCheck
    from glm3.entrypoints.cli.data_report import print_report, report_to_json
    from glm3.entrypoints.cli.progress import counting

    options = RowOptions(
        config, eval_rows, row_format, layout, columns, max_source_length, max_target_length, max_seq_length
    )
    source = open_source(settings_of(context), file, options, model, tokenizer)
    request = CheckRequest(
        path=source.path, layout=source.layout, tokenizer=source.tokenizer, max_faults=max_faults
    )
    with counting("rows checked", quiet=quiet) as count:
        report = DataCheck(source.reader).run(request, count)
    if as_json:
        answer_json(report_to_json(report))
    else:
        print_report(report)
    if not report.usable:
        raise typer.Exit(1)


@app.command("preview", cls=Command, epilog=PREVIEW_EPILOG)
def preview(
    context: typer.Context,
    file: File = None,
    config: Config = None,
    eval_rows: Eval = False,
    count: Annotated[int, typer.Option("-n", "--rows", min=1, help="Rows to show.")] = 3,
    skip: Annotated[int, typer.Option(min=0, help="Rows to pass over first.")] = 0,
    row_format: RowFormatOption = None,
    layout: LayoutOption = Layout.bare,
    columns: Columns = None,
    max_source_length: MaxSource = None,
    max_target_length: MaxTarget = None,
    max_seq_length: MaxSeq = None,
    model: Model = None,
    tokenizer: TokenizerFile = None,
) -> None:
    """Show rows as training sees them: each piece with its id, and which ones the model learns to say.

    Learned pieces are coloured; without colours (NO_COLOR, or not at a terminal) they stand in brackets.
    """
    from glm3.application.preview_data import preview_rows
    from glm3.entrypoints.cli.data_preview import print_preview

    options = RowOptions(
        config, eval_rows, row_format, layout, columns, max_source_length, max_target_length, max_seq_length
    )
    source = open_source(settings_of(context), file, options, model, tokenizer)
    rows = source.reader.open(source.path)
    shown = list(preview_rows(rows, source.layout, source.tokenizer, count, skip))
    print_preview(source.path, source.layout, shown, len(rows))
    if any(row.fault for row in shown) or not shown:
        raise typer.Exit(1)


@app.command("format-tool-alpaca", cls=Command, epilog=FORMAT_EPILOG)
def format_tool_alpaca(
    path: Annotated[Path, typer.Option("--path", metavar="FILE", help="ToolAlpaca's train_data.json.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where the conversations go.")
    ] = Path("formatted_data/tool_alpaca.jsonl"),
    max_faults: Annotated[int, typer.Option(min=0, help="Dropped instances to name; all counted.")] = 10,
) -> None:
    """Write ToolAlpaca's instances as conversations with tools, one a line.

    An instance that breaks the form is dropped, and the reason is told.
    """
    from glm3.adapters.jsonl.reader import JsonRowReader
    from glm3.application.format_tool_alpaca import ToolAlpacaFormatter

    done = ToolAlpacaFormatter(JsonRowReader()).run(path, output)
    for fault in done.faults[:max_faults]:
        note(f"dropped: {fault}")
    if len(done.faults) > max_faults:
        note(f"dropped: {len(done.faults) - max_faults} more")
    answer(f"err_count: {len(done.faults)}")
    for reason, number in done.reasons().items():
        answer(f"  {number} x {reason}")
    answer(f"train_examples: {done.examples}")
    answer(f"conversation distribution: {dict(sorted(done.conversations.items()))}")
    answer(f"written: {output}")

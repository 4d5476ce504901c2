"""``glm3 data`` as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.cli import REPOSITORY, glm3
from support.shared_data import real_tokenizer_path

TINY = REPOSITORY / "configs/glm3/glm3_tiny.yaml"


def written(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


GOOD = {"content": "类型#上衣", "summary": "这件上衣很好。"}


def test_good_rows_pass_with_a_histogram_and_limits(tmp_path: Path) -> None:
    done = glm3("data", "check", str(written(tmp_path / "rows.json", GOOD, GOOD | {"content": "类型#裤"})))
    assert (done.returncode, done.stderr) == (0, "")
    assert "seq_length 192 = 64 + 127 + 1" in done.stdout
    assert "####" in done.stdout
    assert "max_source_length: " in done.stdout
    assert "━" not in done.stdout


def test_every_bad_row_is_told_with_its_place_and_the_exit_code(tmp_path: Path) -> None:
    gbk = json.dumps(GOOD, ensure_ascii=False).encode("gb18030")
    path = written(tmp_path / "rows.json", GOOD, {"content": "x"}, b"{oops", b"", gbk, GOOD)
    done = glm3("data", "check", str(path))
    assert (done.returncode, done.stderr) == (1, "")
    for line, what in ((2, "summary: missing field"), (3, "not valid JSON"), (5, "not UTF-8")):
        assert f"{path}:{line}: {what}" in done.stdout
    assert "duplicates                1  lines 6 (as 1)" in done.stdout


def test_many_faults_are_capped_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", *[{"content": "x"}] * 200, GOOD)
    done = glm3("data", "check", str(path), "--max-faults", "3")
    assert done.returncode == 1
    assert done.stdout.count(f"{path}:") == 1 + 3
    assert "200 x summary: missing field" in done.stdout
    assert "... and 197 more" in done.stdout


def test_json_says_the_same(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", GOOD, {"content": "x"})
    done = glm3("data", "check", str(path), "--json", "--max-source-length", "32")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert (report["rows"], report["faulty"], report["usable"], report["seq_length"]) == (1, 1, False, 160)
    assert report["faults"][0]["line"] == 2
    assert report["faults"][0]["field"] == "summary"
    assert [entry["share"] for entry in report["suggestions"]] == [0.99, 1.0]


@pytest.mark.parametrize("content", [b"", b"\n", b"[]"])
def test_an_empty_file_is_not_usable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    done = glm3("data", "check", str(path))
    assert done.returncode == 1
    assert "0 rows" in done.stdout


def test_a_run_tells_rows_limits_and_tokenizer() -> None:
    done = glm3("data", "check", "--config", str(TINY), "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["path"].endswith("adverts-train.json")
    assert (report["rows"], report["seq_length"]) == (600, 192)
    held_back = glm3("data", "check", "--config", str(TINY), "--eval", "--json")
    assert json.loads(held_back.stdout)["rows"] == 60


def test_dialogues_are_told_by_their_first_row(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！"}]
    path = written(tmp_path / "rows.jsonl", {"conversations": turns})
    done = glm3("data", "check", str(path), "--json")
    assert json.loads(done.stdout)["format"] == "dialogue"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no rows to look at"),
        (("nowhere.json",), "no such file of rows"),
        (("builtin:other",), "builtin:adverts-train"),
        (("builtin:adverts-dev", "--columns", "one"), "PROMPT,ANSWER"),
        (("builtin:adverts-dev", "--eval"), "--config"),
        (("builtin:adverts-dev", "--tokenizer", "nowhere"), "nowhere"),
    ],
)
def test_wrong_use_is_explained_and_prints_no_half_result(arguments: tuple[str, ...], said: str) -> None:
    done = glm3("data", "check", *arguments)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.needs_real_tokenizer
@pytest.mark.skipif(real_tokenizer_path() is None, reason="the published tokenizer.model is not here")
def test_a_tokenizer_with_more_ids_than_the_model_has_rows_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    run.write_text(
        "model:\n  model_config:\n    padded_vocab_size: 4000\n"
        "train_dataset:\n  data_loader:\n    dataset_dir: builtin:adverts-train\n"
        f"  tokenizer:\n    vocab_file: {real_tokenizer_path()}\n"
    )
    done = glm3("data", "check", "--config", str(run))
    assert (done.returncode, done.stdout) == (1, "")
    assert "the tokenizer does not belong to this model" in done.stderr
    assert "64798 ids" in done.stderr


def test_a_preview_marks_what_is_learned_without_colours(tmp_path: Path) -> None:
    done = glm3("data", "preview", str(written(tmp_path / "rows.json", GOOD)), "-n", "1")
    assert done.returncode == 0
    legend, row = done.stdout.splitlines()[1], done.stdout.splitlines()[-1]
    assert legend == "piece/id; ⟦learned⟧, given"
    assert row.startswith("[gMASK]/")
    assert row.endswith("</s>/2⟧")
    assert "上" in row.partition("⟦")[0]
    assert "\x1b" not in done.stdout


def test_a_preview_of_a_bad_row_says_why_and_fails(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", GOOD, {"content": "x"})
    done = glm3("data", "preview", str(path))
    assert done.returncode == 1
    assert f"{path}:2: summary: missing field" in done.stdout


def at_a_terminal(*arguments: str, **environment: str) -> str:
    """Run the program with its output at a terminal and return what it wrote there."""
    master, slave = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "GLM3_CACHE")}
    process = subprocess.Popen(
        [sys.executable, "-m", "glm3", *arguments],
        stdout=slave,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**inherited, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    )
    os.close(slave)
    output = b""
    try:
        while chunk := os.read(master, 65536):
            output += chunk
    except OSError:
        pass  # the other end is closed
    os.close(master)
    assert process.wait(60) == 0
    return output.decode()


def test_a_preview_is_coloured_at_a_terminal_and_not_with_no_color(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", GOOD)
    coloured = at_a_terminal("data", "preview", str(path))
    assert "\x1b[1;32m" in coloured
    assert "⟦" not in coloured
    plain = at_a_terminal("data", "preview", str(path), NO_COLOR="1")
    assert "\x1b" not in plain
    assert "⟦" in plain


def test_a_histogram_has_bars_at_a_terminal(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", GOOD, GOOD | {"summary": "好" * 300})
    shown = at_a_terminal("data", "check", str(path))
    assert "\x1b[32m━" in shown
    assert "\x1b[31m━" in shown


def test_the_model_cards_formatting_script_is_the_command(tmp_path: Path) -> None:
    step = [["getX", '{"k": "v"}', "I look."], "Status Code: 200."]
    instance = {"input": "x?", "intermediate_steps": [step], "Final Thought": "Now.", "output": "5."}
    source = tmp_path / "train_data.json"
    source.write_text(json.dumps([{"NLDocumentation": "docs", "Instances": [instance]}]))
    script = REPOSITORY / "mindformers" / "tools" / "format_tool_alpaca.py"
    done = subprocess.run(
        [sys.executable, str(script), "--path", source.name],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "formatted_data" / "tool_alpaca.jsonl").read_text().splitlines()) == 1


def test_tool_alpaca_is_formatted_counted_and_can_be_checked(tmp_path: Path) -> None:
    step = [["getX", '{"k": "v"}', "I look.\nAction: getX"], "Status Code: 200."]
    instance = {"input": "x?", "intermediate_steps": [step], "Final Thought": "Now.", "output": "5."}
    broken = instance | {"intermediate_steps": [[["getX", "{k}", "r"], "o"]]}
    source = tmp_path / "train_data.json"
    apis = [{"NLDocumentation": "docs", "Instances": [instance, broken, instance]}]
    source.write_text(json.dumps(apis))
    done = glm3("data", "format-tool-alpaca", "--path", str(source), cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "err_count: 1",
        "  1 x Instances[].intermediate_steps[]: the parameters of a call are not JSON",
        "train_examples: 2",
        "conversation distribution: {4: 2}",
        "written: formatted_data/tool_alpaca.jsonl",
    ]
    assert f"dropped: {source}:1: Instances[1].intermediate_steps[0]" in done.stderr
    checked = glm3("data", "check", "formatted_data/tool_alpaca.jsonl", "--json", cwd=tmp_path)
    report = json.loads(checked.stdout)
    assert (report["format"], report["rows"], report["faulty"]) == ("dialogue", 2, 0)

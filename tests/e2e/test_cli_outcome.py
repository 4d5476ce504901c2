"""Exit codes, error messages and log lines of the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import glm3 as package
from glm3.domain.errors import BackendError, MissingFileError, UsageError
from glm3.entrypoints.cli import app as app_module
from glm3.entrypoints.cli import main
from support.cli import glm3


def test_version() -> None:
    done = glm3("--version")
    assert (done.returncode, done.stdout) == (0, f"glm3 {package.__version__}\n")


def test_no_arguments_show_the_help_and_mean_wrong_use() -> None:
    done = glm3()
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: glm3" in done.stderr
    assert "error" not in done.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bogus"], "error: no such option: --bogus"),
        (["doctor", "--bogus"], "error: no such option: --bogus"),
        (["doctr"], "did you mean 'doctor'"),
        (["chat", "--seed", "x"], "--seed"),
        (["chat", "--model"], "--model"),
        (["doctor", "--log-format", "xml"], "'xml' is not one of 'console', 'json'"),
    ],
)
def test_wrong_use_is_code_2_with_a_hint_and_no_traceback(arguments: list[str], message: str) -> None:
    done = glm3(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message.lower() in done.stderr.lower()
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_without_room_is_explained() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "glm3", "inspect", "tiny"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\nhint: free some space where the output goes\n"


def failing(error: BaseException) -> typer.Typer:
    app = typer.Typer()

    @app.callback()
    def _root() -> None: ...

    @app.command("fail")
    def _fail() -> None:
        raise error

    return app


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run_with(error: BaseException, *options: str) -> tuple[int, str]:
        monkeypatch.setattr(app_module, "app", failing(error))
        return main(["fail", *options]), capsys.readouterr().err

    return run_with


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("bad", hint="do this"), 2, "error: bad\nhint: do this\n"),
        (MissingFileError("no such file", path="x"), 1, "error: x: no such file\n"),
        (BackendError("refused"), 1, "error: refused\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (typer.Abort(), 130, "interrupted\n"),
        (typer.Exit(3), 3, ""),
    ],
)
def test_an_error_is_one_clean_message(run, error: BaseException, code: int, text: str) -> None:
    assert run(error) == (code, text)


def test_an_unexpected_error_says_how_to_see_more(run) -> None:
    code, text = run(ZeroDivisionError("division by zero"))
    assert code == 1
    assert text == (
        "error: unexpected ZeroDivisionError: division by zero\nhint: run again with --debug to see where\n"
    )


def test_debug_prints_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    done = glm3("doctor", "--debug", "--quick", environment={"PYTHONWARNINGS": "ignore"})
    assert done.returncode in (0, 1), "a global option behind the command is accepted"
    from glm3.entrypoints.cli import failures

    written: list[str] = []
    monkeypatch.setattr(failures.traceback, "print_exception", lambda error, file: written.append(str(error)))
    assert failures.report(UsageError("bad"), debug=True) == 2
    assert written == ["bad"]


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m glm3 doctor --quick | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert done.returncode in (0, 1)  # 1 if this machine fails a check
    assert done.stderr == ""


def test_log_lines_are_json_on_standard_error() -> None:
    program = (
        "import structlog, logging\n"
        "from glm3.entrypoints.cli.logs import configure\n"
        "from glm3.entrypoints.cli.settings import LogFormat, LogLevel\n"
        "configure(LogFormat.json, LogLevel.info)\n"
        "structlog.contextvars.bind_contextvars(rank=3)\n"
        "structlog.get_logger('glm3.x').info('步骤', loss=1.5)\n"
        "structlog.get_logger().debug('hidden')\n"
        "logging.getLogger('other').warning('from the standard library')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8")
    assert done.stdout == ""
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert first["timestamp"].endswith("Z")
    assert {k: first[k] for k in ("event", "level", "rank", "loss", "logger")} == {
        "event": "步骤",
        "level": "info",
        "rank": 3,
        "loss": 1.5,
        "logger": "glm3.x",
    }
    assert (second["event"], second["level"], second["rank"]) == ("from the standard library", "warning", 3)


def test_console_log_lines_name_level_and_event() -> None:
    program = (
        "import structlog\n"
        "from glm3.entrypoints.cli.logs import configure\n"
        "from glm3.entrypoints.cli.settings import LogFormat, LogLevel\n"
        "configure(LogFormat.console, LogLevel.warning)\n"
        "structlog.get_logger().warning('careful', path='x')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "warning" in done.stderr
    assert "careful" in done.stderr
    assert "\x1b" not in done.stderr, "no colours when standard error is not a terminal"


def test_the_offline_option_is_the_same_as_the_variable() -> None:
    for done in (
        glm3("doctor", "--quick", "--offline"),
        glm3("doctor", "--quick", environment={"GLM3_OFFLINE": "1"}),
    ):
        assert "the network is never touched" in done.stdout


def test_doctor_prints_json(tmp_path: Path) -> None:
    done = glm3("doctor", "--json", "--quick", environment={"GLM3_CACHE": str(tmp_path)})
    report = json.loads(done.stdout)
    names = [finding["name"] for finding in report["findings"]]
    assert {"python", "mindspore", "numpy", "memory", "disk", "compiler", "Ascend"} <= set(names)
    assert report["status"] in ("OK", "WARN", "FAIL")
    assert done.returncode == (1 if report["status"] == "FAIL" else 0)
    assert str(tmp_path) in next(f["found"] for f in report["findings"] if f["name"] == "kernel cache")

"""``glm3 chat``, ``predict`` and ``run`` as a user runs them, on a folder with random weights.

What the command line does with a model is tried on the numpy backend, which starts at once; that MindSpore
answers the same is one test here and the subject of many elsewhere.
"""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.cli import REPOSITORY
from support.cli import glm3 as run_glm3
from support.model_folder import make_model_folder

PREDICT = REPOSITORY / "configs/glm3/predict_glm3_6b.yaml"
BRACKETED_PASTE = b"\x1b[?2004h"  # prompt_toolkit switches it on when a prompt is ready
TEMPLATE = r"[gMASK]sop<|user|> \n 你好<|assistant|> \n"


def glm3(*arguments: str, backend: str = "numpy", **options: Any) -> subprocess.CompletedProcess[str]:
    return run_glm3(*arguments, environment={"GLM3_BACKEND": backend}, **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("models") / "random")


def run_predict(model: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return glm3(
        "run", "--use_parallel=False", "--config", str(PREDICT), "--run_mode", "predict",
        "--load_checkpoint", str(model), "--model.model_config.max_length=16", *arguments,
        cwd=cwd,
    )  # fmt: skip


class TestChat:
    def test_one_answer_goes_to_standard_output_alone(self, model: Path) -> None:
        arguments = ("chat", "-m", str(model), "-p", "你好", "--max-new-tokens", "6", "--greedy")
        done, quiet = glm3(*arguments), glm3(*arguments, "--quiet")
        assert done.returncode == 0
        assert done.stdout == quiet.stdout != ""
        assert "tokens/s" in done.stderr
        assert "tokens/s" not in quiet.stderr
        assert "loading" not in quiet.stderr

    def test_mindspore_gives_the_same_answer_with_look_up_and_without(self, model: Path) -> None:
        arguments = (
            "chat",
            "-m",
            str(model),
            "-p",
            "你好你好你好",
            "--max-new-tokens",
            "24",
            "--greedy",
            "-q",
        )
        numpy = glm3(*arguments, "--no-lookup", backend="numpy")
        mindspore = glm3(*arguments, "--lookup", backend="mindspore")
        assert mindspore.returncode == 0
        assert mindspore.stdout == numpy.stdout != ""
        assert mindspore.stderr == "[cut off: the limit of tokens is reached]\n", "MindSpore itself is silent"

    def test_json_has_everything(self, model: Path) -> None:
        done = glm3("chat", "-m", str(model), "-p", "你好", "--max-new-tokens", "6", "--json")
        reply = json.loads(done.stdout)
        assert reply.keys() == {
            "text", "thought", "tool_call", "tool_call_error", "code", "finish_reason", "usage", "timings"
        }  # fmt: skip
        assert 0 < reply["usage"]["completion_tokens"] <= 6
        assert (
            reply["usage"]["total_tokens"]
            == reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]
        )
        assert reply["timings"]["total_seconds"] >= reply["timings"]["first_token_seconds"] > 0

    def test_a_seed_repeats_the_answer(self, model: Path) -> None:
        def said(*options: str) -> str:
            return glm3(
                "chat", "-m", str(model), "-p", "你好", "--max-new-tokens", "8", "-q", *options
            ).stdout

        assert said("--seed", "3") == said("--seed", "3")
        assert len({said("--seed", str(seed)) for seed in range(3)}) > 1

    def test_piped_text_is_appended_to_the_prompt(self, model: Path) -> None:
        def tokens(stdin: str, *options: str) -> int:
            done = glm3("chat", "-m", str(model), "--max-new-tokens", "2", "--json", *options, stdin=stdin)
            return int(json.loads(done.stdout)["usage"]["prompt_tokens"])

        both = tokens("今天天气很好\n", "-p", "总结")
        assert both > tokens("", "-p", "总结")
        assert both > tokens("今天天气很好\n")

    def test_a_conversation_at_a_terminal(self, model: Path, tmp_path: Path) -> None:
        screen, code = at_a_terminal(
            ["chat", "-m", str(model), "--max-new-tokens", "4", "--greedy"],
            ["/system hi\r", "你好\r", "/stats\r", "/exit\r"],
            tmp_path,
        )
        assert code == 0
        assert "/128] you>" in screen
        assert "system message set" in screen
        assert "3 messages" in screen
        assert (tmp_path / "glm3/chat_history").read_text(encoding="utf-8").count("+你好") == 1

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (("-p", ""), 2, "the prompt is empty"),
            (("-p", "x", "--temperature", "0"), 1, "temperature"),
            (("-p", "x", "--top-p", "2"), 1, "top_p"),
            (("-p", "x", "--greedy", "--seed", "1"), 2, "--seed"),
            (("-p", "x", "--tools", "absent.json"), 1, "absent.json: no such file"),
            (("-p", "一" * 200), 1, "too long for the model's context"),
        ],
    )
    def test_wrong_options_are_explained(
        self, model: Path, tmp_path: Path, options: tuple[str, ...], code: int, message: str
    ) -> None:
        done = glm3("chat", "-m", str(model), *options, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (code, "")
        assert message in done.stderr
        assert "Traceback" not in done.stderr

    def test_an_unknown_kernel_set_and_backend_are_named(self, model: Path) -> None:
        arguments = ("chat", "-m", str(model), "-p", "x", "--kernels", "magic")
        assert "'magic'" in glm3(*arguments, backend="mindspore").stderr
        assert "no such backend" in glm3(*arguments, backend="other").stderr

    def test_offline_forbids_a_download(self, tmp_path: Path) -> None:
        done = glm3("chat", "-m", "glm3_6b", "-p", "x", "--offline", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert "offline" in done.stderr
        assert list(tmp_path.iterdir()) == []


def at_a_terminal(arguments: list[str], lines: list[str], state: Path) -> tuple[str, int]:
    """Type ``lines``, each when a prompt stands there, and return what the screen showed."""
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "glm3", *arguments],
        stdin=other_end, stdout=other_end, stderr=other_end, close_fds=True,
        env={
            **os.environ, "XDG_STATE_HOME": str(state), "TERM": "xterm", "GLM3_BACKEND": "numpy",
            "PYTHONIOENCODING": "utf-8",
        },
    )  # fmt: skip
    os.close(other_end)
    screen = b""
    deadline = time.monotonic() + 120
    pending = list(lines)
    while time.monotonic() < deadline:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # the process has gone, and with it the other end
            break
        screen += read
        if b"\x1b[6n" in read:  # prompt_toolkit asks where the cursor stands
            os.write(terminal, b"\x1b[1;1R")
        if pending and screen.count(BRACKETED_PASTE) > len(lines) - len(pending):
            os.write(terminal, pending.pop(0).encode())
    os.close(terminal)
    return screen.decode("utf-8", errors="replace"), process.wait(timeout=30)


class TestPredict:
    def test_texts_files_and_batches_give_the_same_answers(self, model: Path, tmp_path: Path) -> None:
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("你好\n\n今天天气\n", encoding="utf-8")
        options = ("-m", str(model), "--max-new-tokens", "5")
        one_by_one = glm3("predict", "你好", "今天天气", *options)
        together = glm3("predict", "--file", str(prompts), "--batch-size", "2", *options)
        assert one_by_one.returncode == together.returncode == 0
        assert one_by_one.stdout == together.stdout
        assert "> 今天天气" in together.stderr

    def test_json_lines(self, model: Path) -> None:
        done = glm3("predict", "你好", "今天", "-m", str(model), "--max-new-tokens", "3", "--json")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["prompt"] for row in rows] == ["你好", "今天"]
        assert all(row["usage"]["completion_tokens"] <= 3 for row in rows)

    def test_the_result_file_is_written_only_on_request(self, model: Path, tmp_path: Path) -> None:
        options = ("-m", str(model), "--max-new-tokens", "3")
        assert glm3("predict", "你好", *options, cwd=tmp_path).returncode == 0
        assert list(tmp_path.iterdir()) == []
        assert glm3("predict", "你好", *options, "-o", "r.txt", cwd=tmp_path).returncode == 0
        (text,) = ast.literal_eval((tmp_path / "r.txt").read_text(encoding="utf-8"))
        assert text.startswith("[gMASK]sop<|user|> \n 你好<|assistant|>")

    def test_a_result_that_could_not_be_written_is_refused_before_the_model_is_loaded(
        self, model: Path, tmp_path: Path
    ) -> None:
        done = glm3("predict", "你好", "-m", str(model), "-o", str(tmp_path))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{tmp_path}: cannot be written (expected a file, found a folder)" in done.stderr
        assert "loading" not in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "--file FILE"),
            (("a", "--file", "f"), "--file FILE"),
            (("--file", "empty.txt"), "holds no prompt"),
            (("a", "--batch-size", "0"), "batch size"),
            (("a", " "), "prompt 2 of 2: the prompt is empty"),
        ],
    )
    def test_wrong_use_is_explained(
        self, model: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
    ) -> None:
        (tmp_path / "empty.txt").write_text("\n\n")
        done = glm3("predict", "-m", str(model), *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr


class TestRun:
    def test_the_model_cards_command(self, model: Path, tmp_path: Path) -> None:
        """Prompt and answer are printed as the list it shows, and the template is not wrapped again."""
        done = run_predict(model, tmp_path, "--predict_data", TEMPLATE)
        assert done.returncode == 0, done.stderr
        (text,) = ast.literal_eval(done.stdout.strip())
        assert text.startswith("[gMASK]sop<|user|> \n 你好<|assistant|>")
        assert text.count("<|user|>") == text.count("sop") == 1
        assert (tmp_path / "text_generation_result.txt").read_text(encoding="utf-8") == done.stdout.strip()
        assert run_predict(model, tmp_path, "--predict_data", "你好").stdout == done.stdout

    def test_the_script_of_that_name_works_from_anywhere(self, model: Path, tmp_path: Path) -> None:
        """A relative configuration is looked for beside the script, as the original does."""
        done = subprocess.run(
            [
                sys.executable, str(REPOSITORY / "run_mindformer.py"), "--use_parallel=False",
                "--config", "configs/glm3/predict_glm3_6b.yaml", "--run_mode", "predict",
                "--load_checkpoint", str(model), "--model.model_config.max_length", "16",
                "--predict_data", TEMPLATE,
            ],
            cwd=tmp_path, capture_output=True, text=True, encoding="utf-8",
            env={**os.environ, "GLM3_BACKEND": "numpy"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == run_predict(model, tmp_path, "--predict_data", TEMPLATE).stdout

    def test_several_prompts_and_options(self, model: Path, tmp_path: Path) -> None:
        done = run_predict(
            model, tmp_path, "--predict_data", "你好", "今天", "--options", "save_file=r.txt", "seed=3"
        )
        assert len(ast.literal_eval(done.stdout.strip())) == 2
        assert [path.name for path in tmp_path.iterdir()] == ["r.txt"]

    def test_the_length_limit_counts_the_prompt(self, model: Path, tmp_path: Path) -> None:
        short = run_predict(model, tmp_path, "--predict_data", "你好", "--model.model_config.max_length=12")
        assert len(short.stdout) < len(run_predict(model, tmp_path, "--predict_data", "你好").stdout)

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("--predict_data", "x", "--use_parallel", "maybe"), 2, "expected true or false"),
            (("--predict_data", "x", "--model.model_config.topk=3"), 2, "did you mean top_k"),
            (("--predict_data", "x", "--seed"), 2, "--seed"),
            (("--predict_data", "."), 2, "a folder is no prompt"),
            ((), 2, "nothing to predict"),
            (("--predict_data", ""), 2, "the prompt is empty"),
            (("--predict_data", "x", "--options", "save_file=."), 1, "cannot be written"),
            (("--predict_data", "x", "--processor.tokenizer.vocab_file=no.model"), 2, "no.model"),
        ],
    )
    def test_wrong_use_is_explained(
        self, model: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
    ) -> None:
        done = run_predict(model, tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_pattern_that_fits_several_files_is_refused(self, tmp_path: Path) -> None:
        pattern = REPOSITORY / "configs/glm3/run_glm3_6b_finetune*.yaml"
        done = glm3("run", "--config", str(pattern), "--run_mode", "predict", cwd=tmp_path)
        assert done.returncode == 2
        assert "run_glm3_6b_finetune_2k_800T_A2_64G.yaml" in done.stderr
        assert "run_glm3_6b_finetune_800T_A2_64G.yaml" in done.stderr

    def test_two_configurations_from_a_shells_pattern_are_refused(self, tmp_path: Path) -> None:
        files = [str(path) for path in (REPOSITORY / "configs/glm3").glob("run_glm3_6b_finetune*.yaml")]
        done = glm3("run", "--config", *files, "--run_mode", "predict", cwd=tmp_path)
        assert done.returncode == 2
        assert files[1] in done.stderr

    def test_a_missing_configuration_is_named(self, tmp_path: Path) -> None:
        done = glm3("run", "--config", "absent.yaml", "--run_mode", "predict", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert "absent.yaml" in done.stderr


@pytest.mark.parametrize("broken", ["config.json", "tokenizer.model", "model-00001-of-00002.safetensors"])
def test_a_broken_part_of_a_model_is_named(model: Path, tmp_path: Path, broken: str) -> None:
    folder = make_model_folder(tmp_path / "broken")
    (folder / broken).write_bytes(b"\x00garbage")
    done = glm3("chat", "-m", str(folder), "-p", "你好")
    assert (done.returncode, done.stdout) in ((1, ""), (2, ""))
    assert str(folder / broken) in done.stderr
    assert "Traceback" not in done.stderr
    (folder / broken).unlink()
    done = glm3("chat", "-m", str(folder), "-p", "你好")
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert str(folder) in done.stderr


def test_a_folder_that_is_no_model_is_explained(tmp_path: Path) -> None:
    done = glm3("chat", "-m", str(tmp_path), "-p", "你好")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not a model folder" in done.stderr

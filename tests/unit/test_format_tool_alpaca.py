"""ToolAlpaca's instances become conversations that can be trained on; what is dropped is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from glm3.adapters.jsonl.reader import JsonRowReader
from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.application.format_tool_alpaca import Formatted, ToolAlpacaFormatter
from glm3.domain.errors import InvalidInputError
from glm3.domain.training.encoding import DialogueEncoder
from glm3.domain.training.rows import parse_dialogue

STEP = [
    ["getX", '{"k": "v", "n": 2}', "I look it up.\nAction: getX\nAction Input: {}", "more"],
    "Status Code: 200. Response: {}",
]
INSTANCE: dict[str, Any] = {
    "input": "What is x?",
    "intermediate_steps": [STEP],
    "Final Thought": "I know it.",
    "output": "x is 5.",
}


def formatted(tmp_path: Path, *instances: Any, **api: Any) -> tuple[Formatted, list[dict[str, Any]]]:
    source = tmp_path / "train_data.json"
    apis = [{"Name": "n", "NLDocumentation": "docs 文", "Instances": list(instances)} | api]
    source.write_text(json.dumps(apis, indent=1, ensure_ascii=False), encoding="utf-8")
    target = tmp_path / "out" / "tool_alpaca.jsonl"
    done = ToolAlpacaFormatter(JsonRowReader()).run(source, target)
    return done, [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


def test_an_instance_becomes_the_conversation_of_the_model_card(tmp_path: Path) -> None:
    done, rows = formatted(tmp_path, INSTANCE)
    assert rows == [
        {
            "tools": ["docs 文"],
            "conversations": [
                {"role": "user", "content": "What is x?"},
                {"role": "assistant", "content": "I look it up."},
                {
                    "role": "tool",
                    "name": "getX",
                    "parameters": {"k": "v", "n": 2},
                    "observation": "Status Code: 200. Response: {}",
                },
                {"role": "assistant", "content": "I know it.\nx is 5."},
            ],
        }
    ]
    assert (done.apis, done.examples, done.conversations, done.faults) == (1, 1, {4: 1}, [])


def test_every_line_can_be_encoded(tmp_path: Path) -> None:
    done, rows = formatted(tmp_path, INSTANCE, INSTANCE | {"intermediate_steps": []}, INSTANCE)
    assert done.conversations == {4: 2, 2: 1}
    assert all(DialogueEncoder(ByteTokenizer(), 999).encode(parse_dialogue(row)).learns for row in rows)


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"output": None}, "Instances[1].output", "a text is missing"),
        ({"Final Thought": 5}, "Instances[1].Final Thought", "a text is missing"),
        ({"intermediate_steps": "none"}, "Instances[1].intermediate_steps", "not a list"),
        ({"intermediate_steps": [["getX", "{}"]]}, "Instances[1].intermediate_steps[0]", "a step is not"),
        (
            {"intermediate_steps": [STEP, [["f", "{x}", "r"], "o"]]},
            "Instances[1].intermediate_steps[1]",
            "not JSON",
        ),
        (
            {"intermediate_steps": [[["f", "[1]", "r"], "o"]]},
            "Instances[1].intermediate_steps[0]",
            "not an object",
        ),
        (
            {"intermediate_steps": [[["f", '{"a-b": 1}', "r"], "o"]]},
            "Instances[1].conversations[2].parameters",
            "not a name for an argument",
        ),
        (
            {"intermediate_steps": [[["f", "{}", "Action: f"], "o"]]},
            "Instances[1].conversations[1].content",
            "bad row",
        ),
        ({"input": " "}, "Instances[1].conversations[0].content", "bad row"),
    ],
)
def test_an_instance_that_breaks_the_form_is_dropped_alone_with_its_place_and_reason(
    tmp_path: Path, change: dict[str, Any], field: str, reason: str
) -> None:
    done, rows = formatted(tmp_path, INSTANCE, INSTANCE | change, INSTANCE)
    assert (len(rows), done.examples, len(done.faults)) == (2, 2, 1)
    (fault,) = done.faults
    assert fault.field == field
    assert reason in fault.message
    assert (fault.path, fault.line) == (tmp_path / "train_data.json", 2)
    assert list(done.reasons().values()) == [1]


def test_an_api_without_documentation_is_dropped_and_one_without_instances_is_not_a_fault(
    tmp_path: Path,
) -> None:
    source = tmp_path / "train_data.json"
    good = {"NLDocumentation": "d", "Instances": [INSTANCE]}
    source.write_text(json.dumps([{"Instances": [INSTANCE]}, 5, {"Name": "empty"}, good]))
    done = ToolAlpacaFormatter(JsonRowReader()).run(source, tmp_path / "out.jsonl")
    assert [fault.field for fault in done.faults] == ["NLDocumentation", None]
    assert (done.apis, done.examples) == (2, 1)


@pytest.mark.parametrize("content", ["[]", "[{}]", '[{"NLDocumentation": "d", "Instances": [{}]}]', ""])
def test_nothing_is_written_where_nothing_can_be_formatted(tmp_path: Path, content: str) -> None:
    source, target = tmp_path / "train_data.json", tmp_path / "out.jsonl"
    source.write_text(content)
    target.write_text("earlier")
    with pytest.raises(InvalidInputError, match="no instance could be formatted"):
        ToolAlpacaFormatter(JsonRowReader()).run(source, target)
    assert target.read_text() == "earlier"

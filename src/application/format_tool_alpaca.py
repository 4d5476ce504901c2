"""Use case: turn ToolAlpaca's raw instances into conversations to train on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from glm3.domain.atomic_write import staged_file
from glm3.domain.errors import InvalidInputError
from glm3.domain.ports.dataset import RowReader
from glm3.domain.positional_io import storage_errors
from glm3.domain.training.data_report import fault_kind
from glm3.domain.training.rows import parse_dialogue

__all__ = ["Formatted", "ToolAlpacaFormatter"]

_ACTION = "Action:"


@define
class Formatted:
    """What came of the instances.

    ``conversations`` counts examples by their number of messages; ``faults`` says of every dropped instance
    where it stands and why.
    """

    apis: int = 0
    examples: int = 0
    conversations: Counter[int] = field(factory=Counter)
    faults: list[InvalidInputError] = field(factory=list)

    def reasons(self) -> dict[str, int]:
        """Count the dropped instances by reason, the most frequent first."""
        return dict(Counter(map(fault_kind, self.faults)).most_common())


@frozen
class ToolAlpacaFormatter:
    """Format files that ``reader`` reads: ToolAlpaca's ``train_data.json``, a list of APIs.

    Source: the model card's ``format_tool_alpaca.py``, which writes the same JSON Lines.
    """

    reader: RowReader

    def run(self, source: Path, target: Path) -> Formatted:
        """Write one conversation a line to ``target``, whole or not at all.

        An instance that breaks the form is dropped and counted; every other one can be trained on.

        Raises:
            MissingFileError, InvalidInputError, StorageError: ``source`` cannot be read.
            InvalidInputError: no instance could be formatted; nothing is written.
            StorageError: the file system refused.
        """
        file = self.reader.open(source)
        found = Formatted()
        with staged_file(target) as staged:
            with storage_errors(target), staged.open("w", encoding="utf-8", newline="\n") as out:
                for row in file.read_rows():
                    if row.fault is not None:
                        found.faults.append(row.fault)
                        continue
                    for example in _examples(row.value, source, row.line, found):
                        out.write(json.dumps(example, ensure_ascii=False) + "\n")
            if not found.examples:
                raise InvalidInputError(
                    "no instance could be formatted",
                    path=source,
                    expected="a list of APIs with NLDocumentation and Instances",
                    found=str(found.faults[0]) if found.faults else f"{found.apis} APIs without instances",
                )
        return found


def _examples(api: object, path: Path, line: int, found: Formatted) -> list[Mapping[str, Any]]:
    examples = []
    try:
        documentation, instances = _api(api)
    except InvalidInputError as error:
        error.path, error.line = path, line
        found.faults.append(error)
        return []
    found.apis += 1
    for index, instance in enumerate(instances):
        try:
            example = _example(documentation, instance)
            parse_dialogue(json.loads(json.dumps(example)))
        except InvalidInputError as error:
            error.path, error.line = path, line
            error.field = f"Instances[{index}]" + (f".{error.field}" if error.field else "")
            found.faults.append(error)
        else:
            examples.append(example)
            found.examples += 1
            found.conversations[len(example["conversations"])] += 1
    return examples


def _api(api: object) -> tuple[str, list[Any]]:
    if not isinstance(api, dict):
        raise InvalidInputError("not an API", expected="a JSON object", found=type(api).__name__)
    instances = api.get("Instances", [])
    if not isinstance(instances, list):
        raise InvalidInputError("not a list", field="Instances", found=type(instances).__name__)
    if not instances:  # ToolAlpaca lists some APIs before instances were made for them
        return "", []
    return _text(api, "NLDocumentation"), instances


def _example(documentation: str, instance: object) -> Mapping[str, Any]:
    if not isinstance(instance, dict):
        raise InvalidInputError("not an instance", expected="a JSON object", found=type(instance).__name__)
    conversations: list[Mapping[str, Any]] = [{"role": "user", "content": _text(instance, "input")}]
    steps = instance.get("intermediate_steps")
    if not isinstance(steps, list):
        raise InvalidInputError("not a list", field="intermediate_steps", found=type(steps).__name__)
    for index, step in enumerate(steps):
        conversations += _step(step, f"intermediate_steps[{index}]")
    answer = f"{_text(instance, 'Final Thought')}\n{_text(instance, 'output')}"
    conversations.append({"role": "assistant", "content": answer})
    return {"tools": [documentation], "conversations": conversations}


def _step(step: object, where: str) -> list[Mapping[str, Any]]:
    """Read ``[[name, parameters as JSON text, reasoning, ...], observation]``."""
    match step:
        case [[str() as name, str() as parameters_text, str() as reasoning, *_], observation]:
            pass
        case _:
            raise InvalidInputError(
                "a step is not [[name, parameters, reasoning], observation]", field=where, found=_short(step)
            )
    try:
        parameters = json.loads(parameters_text)
    except (ValueError, RecursionError):
        raise InvalidInputError(
            "the parameters of a call are not JSON", field=where, found=_short(parameters_text)
        ) from None
    if not isinstance(parameters, dict):
        raise InvalidInputError(
            "the parameters of a call are not an object", field=where, found=_short(parameters_text)
        )
    thought = reasoning.split(_ACTION, 1)[0].strip()
    return [
        {"role": "assistant", "content": thought},
        {"role": "tool", "name": name, "parameters": parameters, "observation": observation},
    ]


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidInputError(
            "a text is missing", field=name, found=type(value).__name__ if name in fields else "no such field"
        )
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."

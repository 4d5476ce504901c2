"""A Python function as a tool: defined by its hints and docstring, its arguments checked against them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from attrs import frozen

from glm3.domain.conversation import ToolSpec
from glm3.domain.errors import Glm3Error, InvalidInputError, raise_faults
from glm3.domain.tools.docstring import read_docstring
from glm3.domain.tools.parameters import Parameter, UnsupportedHintError, value_type

__all__ = ["Tool", "tool_from"]

_NAME = re.compile(r"[A-Za-z_][\w-]{0,63}", re.ASCII)
_SHOWN = 60  # characters of a value in a message


@frozen
class Tool:
    """A function that a model may call."""

    spec: ToolSpec
    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self.spec.name

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return keyword arguments of the hinted types, read from a model's values.

        Raises:
            InvalidInputError: arguments are missing, unknown or of another type; all of them are named.
        """
        faults: list[Glm3Error] = []
        bound: dict[str, Any] = {}
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in arguments.keys() - known.keys():
            faults.append(
                InvalidInputError("no such argument", field=name, expected=", ".join(known) or "none")
            )
        for name, parameter in known.items():
            if name in arguments:
                try:
                    bound[name] = parameter.type.convert(arguments[name])
                except ValueError as error:
                    found = repr(arguments[name])[:_SHOWN]
                    faults.append(InvalidInputError("wrong", field=name, expected=str(error), found=found))
            elif parameter.required:
                faults.append(InvalidInputError("is missing", field=name))
        raise_faults(f"the arguments of {self.name} have several faults", faults)
        return bound


def tool_from(function: Callable[..., Any], name: str | None = None) -> Tool:
    """Return ``function`` as a tool, called by its own name unless another is given.

    Its docstring's first paragraph tells the model what it does. A parameter is described by
    ``Annotated[type, "text"]`` or by the docstring's ``Args:`` section; its hint is str, int, float, bool,
    ``Literal``, a list of these, or one of them or None.

    Raises:
        InvalidInputError: the name is none, there is no description, or a parameter has no such hint; all
            faults are named.
    """
    name = name or str(getattr(function, "__name__", ""))
    faults: list[Glm3Error] = []
    if not _NAME.fullmatch(name):
        faults.append(
            InvalidInputError("not a name for a tool", expected="letters, digits, _ and -", found=repr(name))
        )
    summary, described = read_docstring(inspect.getdoc(_annotated(function)))
    if not summary:
        faults.append(
            InvalidInputError("has no docstring", field=name, hint="it tells the model what it does")
        )
    if inspect.iscoroutinefunction(_annotated(function)):
        faults.append(InvalidInputError("is asynchronous", field=name, expected="a function that returns"))
    parameters = _parameters(function, name, described, faults)
    raise_faults(f"{name} cannot be a tool", faults)
    definition = {
        "name": name,
        "description": summary,
        "parameters": {
            "type": "object",
            "properties": {each.name: each.schema() for each in parameters},
            "required": [each.name for each in parameters if each.required],
        },
    }
    return Tool(ToolSpec(name, definition), function, tuple(parameters))


def _parameters(
    function: Callable[..., Any], tool: str, described: Mapping[str, str], faults: list[Glm3Error]
) -> list[Parameter]:
    try:
        signature, hints = (
            inspect.signature(function),
            get_type_hints(_annotated(function), include_extras=True),
        )
    except (NameError, TypeError, ValueError) as error:
        faults.append(InvalidInputError(f"its hints cannot be read: {error}", field=tool))
        return []
    found = []
    for each in signature.parameters.values():
        where = f"{tool}.{each.name}"
        if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
            faults.append(InvalidInputError("cannot be given by name", field=where, found=str(each)))
            continue
        if each.name not in hints:
            faults.append(InvalidInputError("has no type hint", field=where))
            continue
        hint = hints[each.name]
        try:
            kind = value_type(hint)
        except UnsupportedHintError as error:
            faults.append(InvalidInputError("unusable type hint", field=where, expected=error, found=hint))
            continue
        required = each.default is each.empty
        text = _annotation_text(hint) or described.get(each.name, "")
        found.append(Parameter(each.name, kind, required, text, None if required else each.default))
    return found


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what carries the hints: of a callable object that is its ``__call__``."""
    return function if inspect.isroutine(function) else type(function).__call__


def _annotation_text(hint: object) -> str:
    notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((note for note in notes if isinstance(note, str)), "")

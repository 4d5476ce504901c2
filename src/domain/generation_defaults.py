"""What a model's folder says about generation where nobody else says anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from attrs import field, fields, frozen

from glm3.domain.chat_defaults import DEFAULT_TEMPERATURE, DEFAULT_TOP_P
from glm3.domain.coercion import as_bool, as_float, as_int, optional
from glm3.domain.errors import ConfigError, InvalidInputError, raise_faults
from glm3.domain.generation import GenerationConfig
from glm3.domain.special_tokens import SpecialTokens

__all__ = ["GenerationDefaults"]


def _as_ids(value: object) -> tuple[int, ...]:
    return tuple(as_int(item) for item in value) if isinstance(value, (list, tuple)) else (as_int(value),)


def _field(convert: Callable[[object], Any]) -> Any:
    return field(default=None, converter=optional(convert))


@frozen(kw_only=True)
class GenerationDefaults:
    """Fields of a Hugging Face ``generation_config.json``; None is a field that says nothing."""

    do_sample: bool | None = _field(as_bool)
    temperature: float | None = _field(as_float)
    top_k: int | None = _field(as_int)
    top_p: float | None = _field(as_float)
    repetition_penalty: float | None = _field(as_float)
    max_new_tokens: int | None = _field(as_int)
    max_length: int | None = _field(as_int)
    eos_token_id: tuple[int, ...] | None = _field(_as_ids)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], path: Path | None = None) -> GenerationDefaults:
        """Read a parsed file; fields that this record lacks are ignored.

        Raises:
            ConfigError: with every value of a wrong type or out of range, each with ``path`` and field.
        """
        faults: list[ConfigError] = []
        accepted: dict[str, Any] = {}
        for attribute in fields(cls):
            name = attribute.name
            if name not in values:
                continue
            try:
                value = cast(Callable[[object], Any], attribute.converter)(values[name])
                if value is not None:
                    GenerationConfig(**{"stop_ids" if name == "eos_token_id" else name: value})
                accepted[name] = value
            except InvalidInputError as error:
                faults.append(_fault(path, name, error.expected, values[name]))
            except ValueError as error:
                faults.append(_fault(path, name, error.args[0], values[name]))
        raise_faults(f"{len(faults)} faults in the defaults of generation", faults)
        return cls(**accepted)

    def chat_options(
        self, special: SpecialTokens, given: GenerationConfig, named: frozenset[str]
    ) -> GenerationConfig:
        """Return how a chat generates: ``given`` where ``named`` has the field, else as these defaults say.

        What neither says is as ChatGLM3's own chat has it. A limit that is named replaces both limits here.
        The ids that end a reply of ChatGLM3 end it beside ``eos_token_id``, for they part the turns.
        """
        values: dict[str, Any] = {
            "do_sample": True if self.do_sample is None else self.do_sample,
            "temperature": DEFAULT_TEMPERATURE if self.temperature is None else self.temperature,
            "top_k": self.top_k or 0,
            "top_p": DEFAULT_TOP_P if self.top_p is None else self.top_p,
            "repetition_penalty": 1.0 if self.repetition_penalty is None else self.repetition_penalty,
        }
        values = {name: getattr(given, name) if name in named else value for name, value in values.items()}
        limited = given.max_new_tokens is not None
        return GenerationConfig(
            **values,
            max_new_tokens=given.max_new_tokens if limited else self.max_new_tokens,
            max_length=None if limited else self.max_length,
            stop_ids={*(self.eos_token_id or ()), *special.stop_ids},
            seed=given.seed,
            lookup=given.lookup,
        )


def _fault(path: Path | None, name: str, expected: object, found: object) -> ConfigError:
    return ConfigError("invalid value", path=path, field=name, expected=expected, found=repr(found))

"""What a model's folder says about generation where nobody else says anything."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, cast

from attrs import field, fields, frozen

from glm3.domain.chat_defaults import DEFAULT_TEMPERATURE, DEFAULT_TOP_P
from glm3.domain.coercion import as_bool, as_float, as_int, optional
from glm3.domain.errors import ConfigError, InvalidInputError, raise_faults
from glm3.domain.generation import GenerationConfig
from glm3.domain.model_config import ModelConfig
from glm3.domain.special_tokens import SpecialTokens

__all__ = ["UNSAID", "GenerationDefaults"]

_CHAT_SAMPLING = {
    "do_sample": True,
    "temperature": DEFAULT_TEMPERATURE,
    "top_k": 0,
    "top_p": DEFAULT_TOP_P,
    "repetition_penalty": 1.0,
}


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
        """
        limited = given.max_new_tokens is not None
        return GenerationConfig(
            **self.sampling({name: getattr(given, name) for name in named}),
            max_new_tokens=given.max_new_tokens if limited else self.max_new_tokens,
            max_length=None if limited else self.max_length,
            stop_ids=self.stop_ids(special),
            seed=given.seed,
            lookup=given.lookup,
        )

    def run_options(
        self, network: ModelConfig, given: Container[str], special: SpecialTokens, seed: int
    ) -> GenerationConfig:
        """Return how a run generates: as ``network`` where its file has ``given`` a field, else as these say.

        What neither says is as ``network`` has it. A length that the file gives replaces both limits here.
        """

        def chosen(name: str) -> Any:
            own = getattr(self, name)
            return getattr(network, name) if own is None or name in given else own

        length = network.max_length or network.max_decode_length
        limited = "max_length" in given or "max_decode_length" in given
        return GenerationConfig(
            **{name: chosen(name) for name in _CHAT_SAMPLING},
            max_new_tokens=None if limited else self.max_new_tokens,
            max_length=length if limited else self.max_length or length,
            stop_ids={*chosen("eos_token_id"), *special.stop_ids},
            seed=seed,
        )

    def sampling(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that shape sampling: those ``named``, else as these defaults say.

        What neither says is as ChatGLM3's own chat has it.
        """
        own = {name: getattr(self, name) for name in _CHAT_SAMPLING}
        return {
            **_CHAT_SAMPLING,
            **{name: value for name, value in own.items() if value is not None},
            **named,
        }

    def stop_ids(self, special: SpecialTokens) -> frozenset[int]:
        """Return the ids that end a reply: ``eos_token_id``, and ChatGLM3's own, for they part the turns."""
        return frozenset({*(self.eos_token_id or ()), *special.stop_ids})

    def answer_tokens(self, prompt_length: int) -> int | None:
        """Return how long an answer may be, None where nothing is said; below 1 there is no room for one."""
        if self.max_new_tokens is not None or self.max_length is None:
            return self.max_new_tokens
        return self.max_length - prompt_length


UNSAID = GenerationDefaults()
"""The defaults of a folder without the file."""


def _fault(path: Path | None, name: str, expected: object, found: object) -> ConfigError:
    return ConfigError("invalid value", path=path, field=name, expected=expected, found=repr(found))

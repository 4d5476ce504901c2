"""What a Ray application is told, as text or numbers: the options of ``glm3 serve`` that count there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, fields, frozen
from attrs.validators import ge, optional

from glm3.domain.coercion import as_float, as_int
from glm3.domain.coercion import optional as or_none
from glm3.domain.errors import ConfigError, Glm3Error, raise_faults

__all__ = ["RaySettings"]


def _number(default: Any, low: float, convert: Any = as_int) -> Any:
    return field(default=default, converter=convert, validator=ge(low))


def _maybe(convert: Any, low: float) -> Any:
    return field(default=None, converter=or_none(convert), validator=optional(ge(low)))


def _path(value: object) -> Path | None:
    return None if value in (None, "") else Path(str(value))


@frozen(kw_only=True)
class RaySettings:
    """One application.

    Args:
        model: name, folder or file, the same on every node.
        model_name: what requests call it.
        quant: rounding of the weights, as ``glm3 serve --quant``.
        threads: of each replica; also the CPUs that Ray sets aside for it.
        min_replicas, max_replicas: of the engine; equal numbers mean no autoscaling.
        slots, slot_tokens, queue: budget of each replica.
        target_requests: running and waiting ones of a replica that autoscaling aims at; default: its slots.
        token_file: of those who may ask; GLM3_TOKEN on the nodes holds a single token.
        body_bytes: the largest request.
        seconds: that a request may take.
    """

    model: str = "tiny"
    model_name: str | None = None
    quant: str | None = None
    threads: int = _number(1, 1)
    min_replicas: int = _number(1, 1)
    max_replicas: int = _number(1, 1)
    slots: int = _number(8, 1)
    slot_tokens: int | None = _maybe(as_int, 2)
    queue: int = _number(64, 0)
    target_requests: float | None = _maybe(as_float, 0.1)
    token_file: Path | None = field(default=None, converter=_path)
    body_bytes: int = _number(4 * 2**20, 1)
    seconds: float = _number(600.0, 0.1, as_float)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> RaySettings:
        """Return the settings that ``given`` names.

        Raises:
            ConfigError: names are unknown or values wrong; all of them are named.
        """
        known = {each.name: each for each in fields(cls)}
        faults: list[Glm3Error] = [
            ConfigError("no such setting", field=name, expected=", ".join(known))
            for name in given.keys() - known.keys()
        ]
        for name in given.keys() & known.keys():
            try:
                cls(**{name: given[name]})
            except ValueError as error:
                faults.append(ConfigError(f"wrong value: {error.args[0]}", field=name, found=given[name]))
        raise_faults("the settings have several faults", faults)
        made = cls(**given)
        if made.max_replicas < made.min_replicas:
            raise ConfigError(
                "fewer than the least",
                field="max_replicas",
                expected=f"at least {made.min_replicas}",
                found=made.max_replicas,
            )
        return made

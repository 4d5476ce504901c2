"""What a weight is rounded to: bits, how many inputs share a scale, with or without a zero point."""

from __future__ import annotations

import re

import numpy as np
from attrs import frozen

from glm3.domain.errors import ConfigError

__all__ = ["GROUPS", "QuantScheme"]

GROUPS = (32, 64, 128)
"""Inputs that may share a scale, beside all inputs of an output channel."""

_ALIASES = {"int4": "int4-g32", "int8": "int8-channel"}
_NAME = re.compile(r"int([48])-(channel|g(\d{1,4}))(-asym)?")


@frozen
class QuantScheme:
    """One way to store a matrix ``(out, in)`` in ``bits`` per number.

    ``group`` consecutive inputs of an output share a scale; None means all of them (per channel). A weight is
    ``scale * (level - zero)``, where the level is an unsigned integer of ``bits`` and the zero is the middle
    (8 or 128) if ``symmetric``, else stored beside the scale in sixteenths of a step.
    """

    bits: int
    group: int | None = None
    symmetric: bool = True

    def __attrs_post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ConfigError("not a number of bits to store weights in", expected="4 or 8", found=self.bits)
        if self.group is not None and self.group not in GROUPS:
            raise ConfigError(
                "not a group size", expected=", ".join(map(str, GROUPS)) + " or None", found=self.group
            )
        if not self.symmetric and (self.bits != 4 or self.group is None):
            raise ConfigError("only groups of 4-bit numbers have a zero point", found=self.name)

    @classmethod
    def parse(cls, name: str) -> QuantScheme:
        """Read ``int4``, ``int8``, ``int4-g64``, ``int4-g32-asym``, ``int8-channel`` and the like.

        Raises:
            ConfigError: it is none of these.
        """
        match = _NAME.fullmatch(_ALIASES.get(name, name))
        if match is None:
            raise ConfigError(
                "no such quantisation",
                expected="int4, int8, int4-g32, int4-g64-asym, int8-channel and the like",
                found=repr(name),
            )
        group = None if match[3] is None else int(match[3])
        return cls(int(match[1]), group, symmetric=match[4] is None)

    @property
    def name(self) -> str:
        """The full name, which :meth:`parse` reads."""
        sharing = "channel" if self.group is None else f"g{self.group}"
        return f"int{self.bits}-{sharing}" + ("" if self.symmetric else "-asym")

    @property
    def levels(self) -> int:
        """How many levels there are: 16 or 256."""
        return 1 << self.bits

    @property
    def middle(self) -> int:
        """The level of 0 if symmetric."""
        return self.levels // 2

    @property
    def scale_dtype(self) -> np.dtype[np.float16] | np.dtype[np.float32]:
        """Scales of groups are float16; one a channel costs nothing in float32."""
        return np.dtype(np.float32) if self.group is None else np.dtype(np.float16)

    @property
    def bits_per_weight(self) -> float:
        """Bits per number with what is stored beside it, for long channels."""
        if self.group is None:
            return float(self.bits)
        return self.bits + (16 if self.symmetric else 24) / self.group

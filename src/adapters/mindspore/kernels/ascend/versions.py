"""Which MindSpore and CANN have which fused operator, and which operators can be used here.

Rows state the first release of each in which the operator is documented with the inputs used here. A release
in which an operator has gone is not known; where MindSpore's package has no such operator, it is not used
whatever its version says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import frozen

from glm3.domain.errors import BackendError

__all__ = ["OPERATORS", "OperatorVersions", "check_pair", "usable_operators"]

Version = tuple[int, ...]


@frozen
class OperatorVersions:
    """The first MindSpore and the first CANN that have an operator."""

    mindspore: Version
    cann: Version


OPERATORS: Mapping[str, OperatorVersions] = {
    "FlashAttentionScore": OperatorVersions((2, 3), (8, 0)),
    "PagedAttention": OperatorVersions((2, 3), (8, 0)),
    "ReshapeAndCache": OperatorVersions((2, 3), (8, 0)),
    "RmsNorm": OperatorVersions((2, 3), (8, 0)),
    "RotaryPositionEmbedding": OperatorVersions((2, 4), (8, 0)),
    "Swiglu": OperatorVersions((2, 5), (8, 0)),
    "WeightQuantBatchMatmul": OperatorVersions((2, 3), (8, 0)),
}

_OLDEST_CANN: tuple[tuple[Version, Version], ...] = (((2, 6), (8, 1)), ((2, 3), (8, 0)))
"""From which MindSpore on which CANN is the oldest that its plug-in was built for; newest first."""


def parse_version(text: str) -> Version:
    """Return the leading numbers of ``8.2.RC1`` or ``2.10.0``; nothing where there are none."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def check_pair(mindspore: str, cann: str | None) -> None:
    """Make sure that MindSpore's release runs on CANN's; an unknown CANN passes.

    Raises:
        BackendError: CANN is older than what MindSpore was built for.
    """
    found = parse_version(cann or "")
    if not found:
        return
    oldest = next((o for since, o in _OLDEST_CANN if parse_version(mindspore) >= since), ())
    if found < oldest:
        raise BackendError(
            "MindSpore and CANN do not match",
            field="CANN",
            expected=f"{_text(oldest)} or later for MindSpore {mindspore}",
            found=cann,
            hint="install CANN (toolkit and kernels) of the release that MindSpore's install page names, and "
            "source its set_env.sh",
        )


def usable_operators(
    mindspore: str, cann: str | None, present: Collection[str]
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the operators to use of those ``present`` in MindSpore's package, and why others are not.

    An unknown CANN is taken for new enough: the self-test on the card tells more than a guess.
    """
    have, cann_version = parse_version(mindspore), parse_version(cann or "")
    usable, reasons = set(), []
    for name, needs in OPERATORS.items():
        if name not in present:
            reasons.append(f"{name} is not in MindSpore {mindspore}")
        elif have < needs.mindspore:
            reasons.append(f"{name} needs MindSpore {_text(needs.mindspore)}, here is {mindspore}")
        elif cann_version and cann_version < needs.cann:
            reasons.append(f"{name} needs CANN {_text(needs.cann)}, here is {cann}")
        else:
            usable.add(name)
    return frozenset(usable), tuple(reasons)


def _text(version: Version) -> str:
    return ".".join(map(str, version))

"""Read messages off the wire, strictly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from glm3.domain.errors import InvalidInputError, raise_faults
from glm3.entrypoints.serving.bounds import MOST_MESSAGES

__all__ = ["decode"]

M = TypeVar("M", bound=Message)

_MOST_FAULTS = 20


def decode(kind: type[M], content: bytes) -> M:
    """Return the message that ``content`` holds.

    Raises:
        InvalidInputError: it holds none, or fields that are not known here; each is named by its number.
    """
    message = kind()
    try:
        message.ParseFromString(content)
    except UnicodeDecodeError:  # of protobuf's decoder in Python
        raise InvalidInputError("the request has text that is not UTF-8") from None
    except (DecodeError, RecursionError):
        expected = message.DESCRIPTOR.full_name
        raise InvalidInputError("the request is not a protobuf message", expected=expected) from None
    places = _unknown(message, "")
    faults = [InvalidInputError("unknown field", field=place) for place in _first(places)]
    raise_faults("the request has several faults", faults)
    return message


def _first(places: Iterable[str]) -> list[str]:
    return [place for place, _ in zip(places, range(_MOST_FAULTS), strict=False)]


def _unknown(message: Message, where: str) -> Iterable[str]:
    unknown = UnknownFieldSet(message)
    for index in range(len(unknown)):
        yield f"{where}#{unknown[index].field_number}"
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not field.is_repeated:
            yield from _unknown(value, f"{where}{field.name}.")
            continue
        for index, item in enumerate(value[:MOST_MESSAGES]):  # with more of them it will be refused
            yield from _unknown(item, f"{where}{field.name}[{index}].")

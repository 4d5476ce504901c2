"""How to generate, as a client asks for it."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import asdict, field, frozen

from glm3.domain.errors import InvalidInputError
from glm3.entrypoints.grpc.glm3.v1 import chat_pb2

__all__ = ["ChatOptions"]


def _texts(stop: str | Iterable[str]) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop)


@frozen(kw_only=True)
class ChatOptions:
    """What a request says about generation; None leaves it to the server.

    Where nothing is said the server generates as its model's folder says, or else samples as ChatGLM3's own
    chat does, at temperature 0.8 and top-p 0.8; temperature 0 is greedy. ``top_logprobs`` needs
    ``logprobs``. The server checks the values.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    do_sample: bool | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] = field(default=(), converter=_texts)
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None

    def message(self) -> chat_pb2.GenerationOptions:
        """Return the options as they are sent.

        Raises:
            InvalidInputError: one of them is of another type, or too large to be sent.
        """
        message = chat_pb2.GenerationOptions(stop=self.stop)
        for name, value in asdict(self, recurse=False).items():
            if value is not None and name != "stop":
                try:
                    setattr(message, name, value)
                except (TypeError, ValueError) as error:
                    raise InvalidInputError(
                        f"cannot be sent: {error}",
                        field=f"options.{name}",
                        expected=ChatOptions.__annotations__[name],
                        found=repr(value),
                    ) from None
        return message

"""The model with the calls of the model card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glm3.domain.decoding import generate
from glm3.domain.errors import BackendError, InvalidInputError
from glm3.domain.generation import GenerationConfig
from glm3.domain.ports.model import LanguageModel, SupportsForward, SupportsParameters
from glm3.domain.special_tokens import PAD_ID, SpecialTokens
from glm3.entrypoints.python.config import ChatGLM2Config

__all__ = ["ChatGLM2ForConditionalGeneration"]

Ids = NDArray[np.int32]


class ChatGLM2ForConditionalGeneration:
    """A loaded model: generate, or score whole sequences.

    Args:
        model: what computes.
        config: with the defaults of generation (``max_length``, ``do_sample``, ``top_k``, ...).
        special_tokens: of the tokenizer beside the weights, if there is one: generation then ends at its
            stop ids and never produces an id that has no text.
    """

    def __init__(
        self, model: LanguageModel, config: ChatGLM2Config, special_tokens: SpecialTokens | None = None
    ) -> None:
        self.port = model
        self.config = config
        self._special = special_tokens

    def generate(
        self,
        input_ids: Any,
        *,
        attention_mask: Any = None,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        min_new_tokens: int = 0,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        early_stopping: bool | Literal["never"] = False,
        eos_token_id: int | Sequence[int] | None = None,
        seed: int | None = None,
        lookup: bool = True,
        cancel: Callable[[], bool] | None = None,
    ) -> list[Ids]:
        """Answer one prompt ``(seq,)`` or several ``(batch, seq)``; defaults are the configuration's.

        ``max_new_tokens`` counts the answer, ``max_length`` prompt and answer; given both, the first wins.
        Without sampling, ``temperature``, ``top_k`` and ``top_p`` have no effect. ``eos_token_id`` is one id
        or several; by default the configuration's and those that end a reply. Above one, ``num_beams`` is
        Hugging Face's beam search, with its ``length_penalty`` and ``early_stopping``. ``lookup`` computes
        what repeats several tokens at a time where one prompt is answered; no token differs.

        Returns:
            One int32 array a row: the row as it was given, padding at its left included and at its right
            removed, then the answer with the id that ended it.

        Raises:
            ContextLengthError: a prompt leaves no room for an answer.
            InvalidInputError: an option or the input is invalid.
        """
        config = self.config
        rows, starts = _rows(input_ids, attention_mask)

        def chosen(value: Any, name: str) -> Any:
            return getattr(config, name) if value is None else value

        if max_length is None and max_new_tokens is None:
            max_length = config.max_length or config.max_decode_length
        options = GenerationConfig(
            max_new_tokens=max_new_tokens,
            max_length=max_length,
            min_new_tokens=min_new_tokens,
            do_sample=chosen(do_sample, "do_sample") and num_beams == 1,
            temperature=chosen(temperature, "temperature"),
            top_k=chosen(top_k, "top_k"),
            top_p=chosen(top_p, "top_p"),
            repetition_penalty=chosen(repetition_penalty, "repetition_penalty"),
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            stop_ids=self._stop_ids() if eos_token_id is None else _as_ids(eos_token_id),
            seed=seed,
            lookup=lookup,
            vocab_size=None if self._special is None else self._special.vocab_size,
        )
        prompts = [row[start:] for row, start in zip(rows, starts, strict=True)]
        results = generate(self.port, prompts, options, cancel=cancel)
        return [
            np.asarray([*row[:start], *result.ids], dtype=np.int32)
            for row, start, result in zip(rows, starts, results, strict=True)
        ]

    def logits(
        self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None
    ) -> NDArray[np.float32]:
        """Return the scores ``(batch, seq, padded_vocab_size)`` of what follows each position.

        Raises:
            BackendError: this backend scores last positions only.
        """
        if not isinstance(self.port, SupportsForward):
            raise BackendError("this backend cannot score whole sequences")
        return self.port.forward(
            _matrix(input_ids),
            attention_mask=None if attention_mask is None else _matrix(attention_mask),
            position_ids=None if position_ids is None else _matrix(position_ids),
        )

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return a copy of every parameter by Hugging Face name.

        Raises:
            BackendError: this backend does not give its weights out.
        """
        if not isinstance(self.port, SupportsParameters):
            raise BackendError("this backend does not give its weights out")
        return {name: np.array(array) for name, array in self.port.parameters().items()}

    def _stop_ids(self) -> tuple[int, ...]:
        special = () if self._special is None else self._special.stop_ids
        return (*self.config.eos_token_id, *special)


def _rows(input_ids: Any, attention_mask: Any) -> tuple[list[list[int]], list[int]]:
    """Return the rows without padding at their right, and where each begins behind padding at its left."""
    matrix = _matrix(input_ids)
    if attention_mask is None:
        real = matrix != PAD_ID
    else:
        real = _matrix(attention_mask).astype(bool)
        if real.shape != matrix.shape:
            raise InvalidInputError(
                "the mask does not fit", field="attention_mask", expected=matrix.shape, found=real.shape
            )
    rows, starts = [], []
    for ids, row in zip(matrix, real, strict=True):
        columns = np.flatnonzero(row)
        first, last = (int(columns[0]), int(columns[-1])) if len(columns) else (0, -1)
        rows.append(ids[: last + 1].tolist())
        starts.append(first)
    return rows, starts


def _matrix(values: Any) -> NDArray[np.int64]:
    """Accept lists, arrays and tensors of one or two dimensions.

    Raises:
        InvalidInputError: rows of unequal length, other dimensions, or no integers.
    """
    if hasattr(values, "asnumpy"):
        values = values.asnumpy()
    try:
        array = np.atleast_2d(np.asarray(values))
    except ValueError:
        array = np.empty((0, 0, 0))
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iu":
        raise InvalidInputError(
            "not a batch of ids",
            field="input_ids",
            expected="integers (seq,) or (batch, seq), rows padded to one length",
            found=f"{array.dtype} {array.shape}" if array.ndim < 3 else "rows of unequal length",
            hint="pad several prompts with tokenizer.build_batch_input",
        )
    ids: NDArray[np.int64] = array.astype(np.int64)
    return ids


def _as_ids(value: int | Iterable[int]) -> tuple[int, ...]:
    return (int(value),) if isinstance(value, (int, np.integer)) else tuple(int(item) for item in value)

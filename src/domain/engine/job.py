"""One request on its way through the engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glm3.domain.decoding_row import DecodingRow, producible_ids
from glm3.domain.engine.request import EngineRequest, Event, Listener, Produced
from glm3.domain.errors import InvalidInputError
from glm3.domain.logits_processor import log_probabilities
from glm3.domain.ports.model import FloatArray, LanguageModel
from glm3.domain.prompt_lookup import PromptLookup, most_guesses
from glm3.domain.sampling import top_k_ids

__all__ = ["Job"]


class Job:
    """A request, checked, with what the scheduler knows of it.

    ``row`` is its row of the cache, below 0 before it has started; ``leader`` another job that computes the
    same ``shared`` first ids of its prompt, whose row is worth waiting for; ``cancelled`` may be set by any
    thread.

    Raises:
        ContextLengthError: the prompt leaves no room for an answer.
        InvalidInputError: the prompt is empty or has an id the model does not know, or the options ask for
            beams.
    """

    def __init__(
        self, model: LanguageModel, context: int, request: EngineRequest, listener: Listener, now: float
    ) -> None:
        options = request.options
        if options.num_beams > 1:
            raise InvalidInputError(
                "beams cannot be served", field="num_beams", expected=1, found=options.num_beams
            )
        self.request = request
        self._listener = listener
        self.decoding = DecodingRow(
            model,
            request.prompt,
            options,
            context,
            row=request.choice,
            stop_check=request.stop_check,
            openings=request.openings,
        )
        self.prompt: NDArray[np.int32] = np.array(self.decoding.prompt, np.int32)
        self.submitted = now
        self.deadline = None if request.time_limit is None else now + request.time_limit
        self.cancelled = False
        self.row = -1
        self.leader: Job | None = None
        self.shared = 0
        self.answers = False  # its prompt is computed
        self.new_tokens = 0
        self._vocab_size = producible_ids(model, options)
        self._model = model
        self._lookup: PromptLookup | None = None

    @property
    def client(self) -> str:
        return self.request.client

    @property
    def most_tokens(self) -> int:
        """Tokens its row may come to hold; the last one that it produces is never appended."""
        return len(self.prompt) + self.decoding.limit - 1

    @property
    def started(self) -> bool:
        return self.row >= 0

    def tell(self, event: Event) -> None:
        """Pass an event on; a listener that fails loses its request and nobody else's."""
        try:
            self._listener(event)
        except Exception:
            self.cancelled = True

    def guess(self, room: int) -> list[int]:
        """Return up to ``room`` ids that may follow its last one, instead of those guessed before.

        None of them is its last possible one, which is never appended.
        """
        if self._lookup is None:  # what waits, or runs among many, does without its memory
            most = most_guesses(self._model) if self.decoding.looks_up else 0
            self._lookup = PromptLookup(self.decoding.result().ids, most)
        return self._lookup.propose(min(room, self.decoding.left - 1))

    def take(self, scores: FloatArray) -> Produced:
        """Choose the next token by the model's scores ``(padded_vocab_size,)``.

        Raises:
            NonFiniteLogitsError: a score is NaN or infinite.
        """
        token = self.decoding.take(scores)
        self.answers = True
        self.new_tokens += 1
        if self._lookup is not None:
            self._lookup.append(token.id)
        return Produced(token.id, token.logprob, self._top(scores), token.finish_reason)

    def _top(self, scores: FloatArray) -> tuple[tuple[int, float], ...]:
        count = self.request.top_logprobs
        if not count:
            return ()
        logprobs = log_probabilities(scores[: self._vocab_size])
        ids = top_k_ids(logprobs, count)
        best = ids[np.argsort(-logprobs[ids], kind="stable")][:count]
        return tuple((int(id_), float(logprobs[id_])) for id_ in best)

"""Turn ids into text as they come, as exactly as decoding them all at once."""

from __future__ import annotations

from collections.abc import Sequence

from glm3.domain.ports.tokenizer import Tokenizer

__all__ = ["IncrementalDetokenizer", "StopStringFilter"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER = 4  # bytes of UTF-8; a byte-fallback id carries one, a dummy space may come before


class IncrementalDetokenizer:
    """Decode a growing sequence; the deltas joined are ``tokenizer.decode`` of all ids.

    Text that could still change is held back: an incomplete character, and what may begin a stop string.
    The text ends before the stop string that is complete first, and ``stopped`` says so; further ids then
    give nothing. Control tokens appear as text unless skipped. Each id costs the decoding of a few.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop_strings: Sequence[str] = (), *, skip_special_tokens: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._special = tokenizer.special_tokens
        self._skip_special = skip_special_tokens
        # A decoder drops the dummy space of the first piece only; behind this visible anchor none is first.
        self._anchor = self._special.prefix[1]
        self._anchor_length = len(tokenizer.decode([self._anchor]))
        self._pending: list[int] = []
        self._started = False
        self._filter = StopStringFilter(stop_strings)

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the text."""
        return self._filter.stopped

    def follow(self, ids: Sequence[int]) -> None:
        """Go on behind ``ids``, whose text is known: the next piece keeps the space it begins with."""
        if self._tokenizer.decode(ids[-_LONGEST_CHARACTER:], skip_special_tokens=True):
            self._started = True

    def push(self, *ids: int) -> str:
        """Append ids and return the text that is now certain; many cost little more than one.

        Raises:
            TokenizerError: an id lies beyond the vocabulary.
        """
        if self.stopped:
            return ""
        return self._filter.push(self._decode_run(ids) or "".join(map(self._decode_next, ids)))

    def finish(self) -> str:
        """Return what was held back; an incomplete character appears as U+FFFD."""
        return self._filter.push(self._flush()) + self._filter.finish()

    def _decode_run(self, ids: Sequence[int]) -> str:
        """Return the text of several ids in a row, or none where they must be looked at one by one."""
        if len(ids) < 2 or any(self._special.name_of(token_id) for token_id in ids):
            return ""
        text = self._text([*self._pending, *ids])
        if _REPLACEMENT in text:
            return ""  # an incomplete character, or a broken one
        if text:
            self._pending.clear()
            self._started = True
        return text

    def _decode_next(self, token_id: int) -> str:
        name = self._special.name_of(token_id)
        if name is not None and not self._skip_special:
            text = self._flush() + name
            self._started = True
            return text
        if name is not None or not self._in_context([token_id]):
            return self._flush()  # without text anywhere, but it ends a run of byte pieces
        self._pending.append(token_id)
        text = self._text(self._pending)
        if not text:
            return ""  # a lone dummy space: what follows decides
        if text.endswith(_REPLACEMENT):
            return self._release_broken() if len(self._pending) > _LONGEST_CHARACTER else ""
        self._pending.clear()
        self._started = True
        return text

    def _release_broken(self) -> str:
        """Let go of the oldest ids that no further byte can make a character of."""
        whole = self._text(self._pending)
        for count in range(1, len(self._pending) + 1):
            head = self._text(self._pending[:count])
            if head and head + self._in_context(self._pending[count:]) == whole:
                del self._pending[:count]
                self._started = True
                return head
        return ""

    def _flush(self) -> str:
        if not self._pending:
            return ""
        text = self._text(self._pending)
        self._pending.clear()
        self._started = True
        return text

    def _text(self, ids: list[int]) -> str:
        return self._in_context(ids) if self._started else self._tokenizer.decode(ids)

    def _in_context(self, ids: list[int]) -> str:
        return self._tokenizer.decode([self._anchor, *ids])[self._anchor_length :] if ids else ""


class StopStringFilter:
    """Pass text on in pieces until a stop string is complete, however the text is cut up."""

    def __init__(self, stop_strings: Sequence[str] = ()) -> None:
        self._stop_strings = tuple(stop_strings)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Append text and return what certainly lies before every stop string."""
        if self.stopped or not text:
            return ""
        self._held += text
        found = [
            (start + len(stop), start) for stop in self._stop_strings if (start := self._held.find(stop)) >= 0
        ]
        if found:
            self.stopped = True
            return self._release(min(found)[1])
        return self._release(len(self._held) - self._longest_beginning())

    def finish(self) -> str:
        """Return what was held back in case a stop string had begun."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text

    def _longest_beginning(self) -> int:
        longest = max(map(len, self._stop_strings), default=0)
        for length in range(min(len(self._held), longest - 1), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stop_strings):
                return length
        return 0

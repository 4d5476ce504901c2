"""Turn an answer's ids into text as they come, and into a reply at the end."""

from __future__ import annotations

from collections.abc import Sequence

from glm3.domain.conversation import FinishReason, Message, Reply, Role
from glm3.domain.detokenizer import IncrementalDetokenizer, StopStringFilter
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.response import TRAINING_DATE, fill_in_date, interpret, names_tool, split_parts

__all__ = ["ReplyStream"]


class ReplyStream:
    """Collect one answer; the deltas joined are what its reply shows, thought first and then text.

    Text is passed on as soon as it cannot change any more. From the first part on whose header names a
    tool, all is held back until the end, when it is known whether it is a call.

    Args:
        tokenizer: the model's own.
        stop_strings: the text ends before the first of them; ``stopped`` then says so.
    """

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._special = tokenizer.special_tokens
        self._filter = StopStringFilter(stop_strings)
        self._ids: list[int] = []
        self._part = _PartText(tokenizer)
        self._certain = ""  # what was passed to the filter
        self._shown = ""  # what came out of it
        self._stop_id: int | None = None
        self.token_count = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the text."""
        return self._filter.stopped

    def push(self, *ids: int) -> str:
        """Append ids and return the text that is now certain."""
        if len(ids) == 1 or not self._part.in_body or not self._is_text(ids):
            return "".join(map(self._push_one, ids))
        self.token_count += len(ids)
        self._ids.extend(ids)
        return self._show(self._part.push(*ids))

    def _push_one(self, token_id: int) -> str:
        self.token_count += 1
        if token_id in self._special.stop_ids:
            self._stop_id = token_id
            return ""
        self._ids.append(token_id)
        if token_id != self._special.assistant:
            return self._show(self._part.push(token_id))
        if self._part.held:
            return ""
        delta = self._show(self._part.finish())
        self._part = _PartText(self._tokenizer, separator="\n" if self._certain else "")
        return delta

    def _is_text(self, ids: Sequence[int]) -> bool:
        return max(ids) < self._special.num_pieces and self._special.stop_ids[0] not in ids

    def finish(self) -> str:
        """Return what was held back and is text after all; call it once, at the end."""
        if self.stopped:
            return ""
        reply = self.reply(FinishReason.STOP)
        everything = "\n".join(text for text in (reply.thought, reply.text) if text)
        delta = self._show(everything[len(self._certain) :])
        rest = self._filter.finish()
        self._shown += rest
        return delta + rest

    def reply(self, reason: FinishReason) -> Reply:
        """Return what the answer means; an answer that was cancelled before it began adds no message."""
        if not self._ids and reason is FinishReason.CANCELLED:
            return Reply("", (), reason)
        if self.stopped:
            return Reply(self._shown, (Message(Role.ASSISTANT, self._shown),), reason)
        parts = split_parts(self._ids, self._tokenizer)
        return interpret(parts, reason, awaits_tool=self._stop_id == self._special.observation)

    def _show(self, certain: str) -> str:
        self._certain += certain
        shown = self._filter.push(certain)
        self._shown += shown
        return shown


class _PartText:
    """What is certain of one part's visible text.

    White space at the edges is not shown, and the placeholder for the training date is filled in, so both
    are held back until what follows is known.
    """

    def __init__(self, tokenizer: Tokenizer, separator: str = "") -> None:
        self._tokenizer = tokenizer
        self._newline = tokenizer.encode("\n")[-1]
        self._header: list[int] | None = []  # until it is known to be none, or to name a tool
        self._in_header = True
        self._detokenizer = IncrementalDetokenizer(tokenizer)
        self._separator = separator
        self._pending = ""
        self._begun = False
        self.held = False  # its header names a tool

    @property
    def in_body(self) -> bool:
        """Whether all that comes is text."""
        return not self._in_header and not self.held

    def push(self, *ids: int) -> str:
        """Append one id, or several of the body."""
        if self.held:
            return ""
        if self._in_header and ids[0] == self._newline:
            return self._end_header()
        if self._header is None:
            return self._take(self._detokenizer.push(*ids))
        self._header.extend(ids)
        header = self._tokenizer.decode(self._header, skip_special_tokens=True)
        if not header.strip() or header.endswith("\N{REPLACEMENT CHARACTER}") or names_tool(header):
            return ""
        return self._take(self._decode_header())  # no name of a tool: an answer that lacks its header line

    def finish(self) -> str:
        """Return the rest of a part that another one follows."""
        return self._take(self._decode_header() + self._detokenizer.finish(), at_end=True)

    def _end_header(self) -> str:
        """Header and content were encoded apart, so they are decoded apart."""
        self._in_header = False
        if self._header is not None:
            self.held = bool(self._tokenizer.decode(self._header, skip_special_tokens=True).strip())
            self._header = None
            return ""
        end = self._detokenizer.finish() + "\n"
        self._detokenizer = IncrementalDetokenizer(self._tokenizer)
        return self._take(end)

    def _decode_header(self) -> str:
        header, self._header = self._header or [], None
        return "".join(map(self._detokenizer.push, header))

    def _take(self, text: str, *, at_end: bool = False) -> str:
        body = self._pending + text
        if not self._begun:
            body = body.lstrip()
        keep = len(body.rstrip())
        if not at_end:
            keep -= _placeholder_beginning(body[:keep])
        certain, self._pending = fill_in_date(body[:keep]), body[keep:]
        if not certain or self._begun:
            return certain
        self._begun = True
        return self._separator + certain


def _placeholder_beginning(text: str) -> int:
    """Return how many characters at the end may be the beginning of the training date's placeholder."""
    for length in range(min(len(text), len(TRAINING_DATE) - 1), 0, -1):
        if text.endswith(TRAINING_DATE[:length]):
            return length
    return 0

"""Rows to what a training step reads: ids, and at each position the id to learn, or -100."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.domain.conversation import Message, Role
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.prompt import TOOLS_PREAMBLE, PromptBuilder
from glm3.domain.special_tokens import EOS_ID, PAD_ID
from glm3.domain.tool_call import format_tool_call
from glm3.domain.training.rows import Dialogue, DialogueTurn, PairRow

__all__ = ["IGNORE", "DialogueEncoder", "EncodedRow", "PairEncoder", "PairLayout"]

IGNORE = -100
"""The target of a position at which nothing is learned."""


@frozen(eq=False)
class EncodedRow:
    """One row of a batch: ``input_ids`` and ``targets``, both ``(seq_length,)`` int32, padded at the right.

    ``targets[i]`` is what should follow ``input_ids[i]``. ``length`` counts ids before padding; the first
    ``source`` of them are the prompt, or what comes before the first learned token of a conversation.
    ``wanted`` and ``source_wanted`` are what the two would be without truncation.
    """

    input_ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    length: int
    source: int
    wanted: int
    source_wanted: int

    @property
    def truncated(self) -> bool:
        return self.wanted > self.length

    @property
    def supervised_tokens(self) -> int:
        return int((self.targets != IGNORE).sum())

    @property
    def learns(self) -> bool:
        """Whether anything is learned besides that the sequence ends."""
        return bool(((self.targets != IGNORE) & (self.targets != EOS_ID)).any())


class PairLayout(StrEnum):
    """``bare`` is MindFormers' ADGEN layout, without roles; ``chat`` is a user turn and its answer.

    A model tuned on ``bare`` rows answers ``[gMASK] sop`` and the bare text, and may forget how to chat.
    """

    BARE = "bare"
    CHAT = "chat"


class PairEncoder:
    """Encode input-output rows to ``max_source_length + max_target_length + 1`` positions.

    The prompt, its prefix and role tokens included, is cut at the right to ``max_source_length`` ids and
    the answer to ``max_target_length``; the end of sequence follows.

    Args:
        tokenizer: the model's own.
        max_source_length: ids of the prompt.
        max_target_length: ids of the answer, without the end of sequence.
        layout: with or without roles.
        ignore_unknown: learn nothing where the answer holds the unknown piece, whose id also pads
            (MindFormers' ``ignore_pad_token_for_loss``).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_source_length: int,
        max_target_length: int,
        layout: PairLayout = PairLayout.BARE,
        *,
        ignore_unknown: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._builder = PromptBuilder(tokenizer)
        self._layout = layout
        self._max_source = max_source_length
        self._max_target = max_target_length
        self._ignore_unknown = ignore_unknown
        self.seq_length = max_source_length + max_target_length + 1

    def prompt(self, source: str) -> list[int]:
        """Return the prompt that asks for an answer to ``source``, cut to its limit."""
        ids, tail = self._prompt(source)
        return ids[: self._max_source - len(tail)] + tail

    def encode(self, row: PairRow) -> EncodedRow:
        """Encode a row to train on."""
        ids, tail = self._prompt(row.source)
        prompt = ids[: self._max_source - len(tail)] + tail
        answer = self._answer(row.target)
        kept = answer[: self._max_target]
        learned = [IGNORE if self._ignore_unknown and i == PAD_ID else i for i in kept]
        return _pad(
            prompt + kept + [EOS_ID],
            [IGNORE] * (len(prompt) - 1) + learned + [EOS_ID],
            self.seq_length,
            source=len(prompt),
            wanted=len(ids) + len(tail) + len(answer) + 1,
            source_wanted=len(ids) + len(tail),
        )

    def _prompt(self, source: str) -> tuple[list[int], list[int]]:
        """Return the ids that may be cut, and those that must follow them."""
        if self._layout is PairLayout.BARE:
            return [*self._tokenizer.special_tokens.prefix, *self._tokenizer.encode(source)], []
        ids = self._builder.build([Message(Role.USER, source)])
        return ids[:-1], ids[-1:]

    def _answer(self, target: str) -> list[int]:
        if self._layout is PairLayout.BARE:
            return self._tokenizer.encode(target)
        return self._builder.message_ids(Message(Role.ASSISTANT, target))[1:]


class DialogueEncoder:
    """Encode conversations: the model learns what it must say itself, and when to stop.

    Learned are an assistant turn's header, content, and the token after it: the next role's marker or the
    end of sequence. What the system inserts, ``<|assistant|>`` after a user turn included, is not.
    Source: ChatGLM3's multi-turn finetuning, as MindFormers' ``MultiTurnDataset`` lays it out.

    Args:
        tokenizer: the model's own.
        max_seq_length: positions of a row; longer ones are cut at the right.
        tools_indent: how the JSON of tools is laid out; None is one line as in that data set, 4 is what
            the model is shown when it chats.
    """

    def __init__(self, tokenizer: Tokenizer, max_seq_length: int, *, tools_indent: int | None = None) -> None:
        self._builder = PromptBuilder(tokenizer)
        self._prefix = list(tokenizer.special_tokens.prefix)
        self._tools_indent = tools_indent
        self.seq_length = max_seq_length

    def encode(self, dialogue: Dialogue) -> EncodedRow:
        """Encode a conversation to train on."""
        ids, learn = list(self._prefix), [False] * len(self._prefix)
        for message, flag in self._messages(dialogue):
            piece = self._builder.message_ids(message)
            ids += piece
            learn += [flag] * len(piece)
        ids.append(EOS_ID)
        targets = [after if flag else IGNORE for after, flag in zip(ids[1:], learn, strict=True)]
        before = 1 + learn.index(True) if any(learn) else len(ids)
        return _pad(ids, targets, self.seq_length, source=before, wanted=len(ids), source_wanted=before)

    def _messages(self, dialogue: Dialogue) -> Iterable[tuple[Message, bool]]:
        turns: Sequence[DialogueTurn] = dialogue.turns
        if dialogue.tools is not None:
            preamble = TOOLS_PREAMBLE
            if turns[0].role == "system":
                preamble, turns = turns[0].content, turns[1:]
            tools = json.dumps(list(dialogue.tools), ensure_ascii=False, indent=self._tools_indent)
            yield Message(Role.SYSTEM, f"{preamble}\n{tools}"), False
        for turn in turns:
            if turn.role == "tool":
                yield format_tool_call(turn.name, turn.parameters), turn.learn
                yield Message(Role.OBSERVATION, turn.observation), False
            else:
                yield Message(Role.parse(turn.role), turn.content), turn.learn


def _pad(
    ids: Sequence[int],
    targets: Sequence[int],
    seq_length: int,
    *,
    source: int,
    wanted: int,
    source_wanted: int,
) -> EncodedRow:
    length = min(len(ids), seq_length)
    padded_ids = np.full(seq_length, PAD_ID, np.int32)
    padded_ids[:length] = ids[:length]
    padded_targets = np.full(seq_length, IGNORE, np.int32)
    known = min(len(targets), seq_length)
    padded_targets[:known] = targets[:known]
    return EncodedRow(padded_ids, padded_targets, length, min(source, length), wanted, source_wanted)

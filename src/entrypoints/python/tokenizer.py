"""The tokenizer with the calls of the model card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm3.domain.errors import TokenizerError, UsageError
from glm3.domain.ports.tokenizer import SupportsSave, Tokenizer
from glm3.domain.prompt import PromptBuilder, pad_batch
from glm3.domain.special_tokens import BOS_ID, EOS_ID, PAD_ID

__all__ = ["ChatGLM3Tokenizer"]

History = Sequence[Mapping[str, Any]]
Encoding = dict[str, NDArray[np.int64]]

_COMMANDS = {"<bos>": BOS_ID, "<eos>": EOS_ID, "<pad>": PAD_ID}


class ChatGLM3Tokenizer:
    """Encode text and conversations as ChatGLM3 reads them.

    Text never turns into control tokens: ``<|user|>`` typed by a user stays ordinary text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.port = tokenizer
        self._builder = PromptBuilder(tokenizer)

    @property
    def vocab_size(self) -> int:
        """Pieces plus control tokens; the first id the model must never produce."""
        return self.port.special_tokens.vocab_size

    @property
    def eos_token_id(self) -> int:
        return EOS_ID

    @property
    def pad_token_id(self) -> int:
        return PAD_ID

    @property
    def stop_token_ids(self) -> list[int]:
        """The ids that end a reply: end of sequence, ``<|user|>``, ``<|observation|>``."""
        return list(self.port.special_tokens.stop_ids)

    def get_command(self, token: str) -> int:
        """Return the id of a control token, ``<bos>``, ``<eos>`` or ``<pad>``.

        Raises:
            TokenizerError: there is no such token.
        """
        return _COMMANDS[token] if token in _COMMANDS else self.port.special_tokens.id_of(token)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of ``text``, with ``[gMASK] sop`` in front unless told otherwise."""
        prefix = self.port.special_tokens.prefix if add_special_tokens else ()
        return [*prefix, *self.port.encode(text)]

    def __call__(self, text: str | Sequence[str], padding_side: str = "left") -> dict[str, Any]:
        """Encode one text to lists, or several to one padded batch of arrays ``(batch, seq)``."""
        if isinstance(text, str):
            ids = self.encode(text)
            return {
                "input_ids": ids,
                "attention_mask": [1] * len(ids),
                "position_ids": list(range(len(ids))),
            }
        return self._pad([self.encode(item) for item in text], padding_side)

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str | list[str]:
        """Return the text of one sequence of ids, or a list of texts for several.

        Raises:
            TokenizerError: an id lies beyond the vocabulary.
        """
        rows = ids.tolist() if hasattr(ids, "tolist") else ids
        if not isinstance(rows, Iterable):
            rows = [rows]
        rows = [row.tolist() if hasattr(row, "tolist") else row for row in rows]
        if any(isinstance(row, Sequence) for row in rows):
            return [self.port.decode(row, skip_special_tokens=skip_special_tokens) for row in rows]
        return self.port.decode(rows, skip_special_tokens=skip_special_tokens)

    def build_single_message(self, role: str, metadata: str, message: str) -> list[int]:
        """Return the ids of one turn: its role's marker, the header line, the content.

        Raises:
            ConversationError: an unknown role.
        """
        return self._builder.build_single_message(role, metadata, message)

    def build_chat_input(self, query: str, history: History | None = None, role: str = "user") -> Encoding:
        """Return a prompt's ``input_ids``, ``attention_mask`` and ``position_ids``, each ``(1, seq)``.

        The history is a list of ``{"role", "content"[, "metadata"][, "tools"]}`` and is not changed.

        Raises:
            ConversationError: an item of the history is malformed, or a role stands in the wrong place.
        """
        return self.build_batch_input([query], [history or []], [role])

    def build_batch_input(
        self,
        queries: str | Sequence[str],
        histories: Sequence[History | None] | None = None,
        roles: str | Sequence[str] = "user",
        padding_side: str = "left",
    ) -> Encoding:
        """Return a padded batch ``(batch, seq)`` of prompts; one role may stand for all.

        Raises:
            UsageError: queries, histories and roles differ in number.
            ConversationError: see :meth:`build_chat_input`.
        """
        queries = [queries] if isinstance(queries, str) else queries
        histories = [[] for _ in queries] if histories is None else histories
        roles = [roles] * len(queries) if isinstance(roles, str) else roles
        if not len(queries) == len(histories) == len(roles):
            raise UsageError(
                "one history and one role per query",
                expected=f"{len(queries)} of each",
                found=f"{len(histories)} histories, {len(roles)} roles",
            )
        prompts = [
            self._builder.build_chat_input(query, history or [], role)
            for query, history, role in zip(queries, histories, roles, strict=True)
        ]
        return self._pad(prompts, padding_side)

    def save_pretrained(self, folder: str | Path) -> tuple[str]:
        """Write ``tokenizer.model`` into ``folder``, byte for byte, and return its path.

        Raises:
            TokenizerError: this tokenizer has no vocabulary file.
        """
        if not isinstance(self.port, SupportsSave):
            raise TokenizerError("this tokenizer has no vocabulary file to save")
        return (str(self.port.save(Path(folder))),)

    save_vocabulary = save_pretrained

    def _pad(self, rows: Sequence[Sequence[int]], side: str) -> Encoding:
        if side not in ("left", "right"):
            raise UsageError("unknown padding side", expected="left or right", found=repr(side))
        input_ids, attention_mask, position_ids = pad_batch(rows, "left" if side == "left" else "right")
        return {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}

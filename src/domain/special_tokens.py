"""The nine control tokens that ChatGLM3 appends behind its sentencepiece vocabulary.

Ids follow the pieces: with the published 64,789 pieces they are 64789 to 64797, in this order.
Source: ChatGLM3's tokenizer; the order is part of the format.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from glm3.domain.errors import TokenizerError

__all__ = ["BOS_ID", "EOS_ID", "PAD_ID", "SPECIAL_TOKEN_NAMES", "UNK_ID", "SpecialTokens"]

UNK_ID = 0
BOS_ID = 1
EOS_ID = 2
PAD_ID = UNK_ID
"""ChatGLM3 has no pad piece of its own and pads with the unknown piece."""

SPECIAL_TOKEN_NAMES = (
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "sop",
    "eop",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)


@frozen
class SpecialTokens:
    """Map the control tokens of a vocabulary of ``num_pieces`` sentencepiece pieces to ids and back."""

    num_pieces: int
    ids: Mapping[str, int] = field(init=False)

    @ids.default
    def _ids(self) -> Mapping[str, int]:
        return {name: self.num_pieces + offset for offset, name in enumerate(SPECIAL_TOKEN_NAMES)}

    @property
    def vocab_size(self) -> int:
        """Pieces plus control tokens: the first id that must never be produced."""
        return self.num_pieces + len(SPECIAL_TOKEN_NAMES)

    @property
    def prefix(self) -> tuple[int, int]:
        """``[gMASK] sop``, the start of every sequence."""
        return self.ids["[gMASK]"], self.ids["sop"]

    @property
    def user(self) -> int:
        return self.ids["<|user|>"]

    @property
    def assistant(self) -> int:
        return self.ids["<|assistant|>"]

    @property
    def observation(self) -> int:
        return self.ids["<|observation|>"]

    @property
    def stop_ids(self) -> tuple[int, int, int]:
        """The ids that end a reply: end of sequence, the user's turn, a tool's turn."""
        return EOS_ID, self.user, self.observation

    def role_id(self, role: str) -> int:
        """Return the id of a role's marker, for example 64795 for ``user``."""
        return self.id_of(f"<|{role}|>")

    def id_of(self, name: str) -> int:
        """Return the id of a control token.

        Raises:
            TokenizerError: ``name`` is none of the nine.
        """
        if name not in self.ids:
            raise TokenizerError(
                "not a special token of ChatGLM3", found=repr(name), expected=", ".join(SPECIAL_TOKEN_NAMES)
            )
        return self.ids[name]

    def name_of(self, token_id: int) -> str | None:
        """Return the control token's text, or None for an ordinary piece."""
        offset = token_id - self.num_pieces
        return SPECIAL_TOKEN_NAMES[offset] if 0 <= offset < len(SPECIAL_TOKEN_NAMES) else None

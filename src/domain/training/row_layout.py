"""How the rows of a data set become ids: everything that decides over them but the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum

from attrs import define, field, frozen

from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.run_config.data import DatasetConfig
from glm3.domain.special_tokens import SpecialTokens
from glm3.domain.training.encoding import DialogueEncoder, EncodedRow, PairEncoder, PairLayout
from glm3.domain.training.rows import Dialogue, PairRow, parse_dialogue, parse_pair

__all__ = ["PreEncoded", "RowFormat", "RowLayout", "texts_of"]


class RowFormat(StrEnum):
    """``adgen``: an input and its answer; ``dialogue``: a conversation, with or without tools."""

    ADGEN = "adgen"
    DIALOGUE = "dialogue"

    @classmethod
    def of_row(cls, value: object) -> RowFormat:
        """Tell the format of a row by its fields."""
        return cls.DIALOGUE if isinstance(value, dict) and "conversations" in value else cls.ADGEN


@frozen(kw_only=True)
class RowLayout:
    """The keys of a data set that shape its rows, named as in the files of ``configs/glm3``."""

    format: RowFormat = RowFormat.ADGEN
    origin_columns: tuple[str, ...] = ("content", "summary")
    max_source_length: int = 64
    max_target_length: int = 127
    max_seq_length: int = 2048
    pair_layout: PairLayout = PairLayout.BARE
    ignore_pad_token_for_loss: bool = True

    @classmethod
    def of(cls, dataset: DatasetConfig, pair_layout: PairLayout = PairLayout.BARE) -> RowLayout:
        """Read the layout off a data set's section."""
        loader = dataset.data_loader
        return cls(
            format=RowFormat.ADGEN if loader.type == "ADGenDataLoader" else RowFormat.DIALOGUE,
            origin_columns=loader.origin_columns,
            max_source_length=dataset.max_source_length,
            max_target_length=dataset.max_target_length,
            max_seq_length=dataset.max_seq_length,
            pair_layout=pair_layout,
            ignore_pad_token_for_loss=dataset.ignore_pad_token_for_loss,
        )

    @property
    def seq_length(self) -> int:
        """Positions of an encoded row."""
        if self.format is RowFormat.DIALOGUE:
            return self.max_seq_length
        return self.max_source_length + self.max_target_length + 1

    def parse(self, value: object) -> PairRow | Dialogue:
        """Read one row.

        Raises:
            InvalidInputError: naming the field that is missing or wrong.
        """
        if self.format is RowFormat.DIALOGUE:
            return parse_dialogue(value)
        return parse_pair(value, self.origin_columns)

    def pair_encoder(self, tokenizer: Tokenizer) -> PairEncoder:
        """Return the encoder of inputs with their answers."""
        return PairEncoder(
            tokenizer,
            self.max_source_length,
            self.max_target_length,
            self.pair_layout,
            ignore_unknown=self.ignore_pad_token_for_loss,
        )

    def encoder(self, tokenizer: Tokenizer) -> Callable[[PairRow | Dialogue], EncodedRow]:
        """Return what encodes the rows that :meth:`parse` returns."""
        pairs, dialogues = self.pair_encoder(tokenizer), DialogueEncoder(tokenizer, self.max_seq_length)
        return lambda row: pairs.encode(row) if isinstance(row, PairRow) else dialogues.encode(row)


def texts_of(row: PairRow | Dialogue) -> Iterator[str]:
    """Yield the texts of a row that are encoded as they stand, which are nearly all of it."""
    if isinstance(row, PairRow):
        yield row.source
        yield row.target
        return
    for turn in row.turns:
        yield turn.observation if turn.role == "tool" else turn.content


@define
class PreEncoded:
    """A tokenizer that has the ids of some texts at hand and asks the ``tokenizer`` below for the others."""

    tokenizer: Tokenizer
    known: Mapping[str, list[int]] = field(factory=dict)

    @property
    def special_tokens(self) -> SpecialTokens:
        return self.tokenizer.special_tokens

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; see :class:`glm3.domain.ports.tokenizer.Tokenizer`."""
        ids = self.known.get(text)
        return self.tokenizer.encode(text) if ids is None else ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of ``ids``."""
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

"""Which blocks of a pooled KV cache hold which sequence: handed out, shared, copied before writing, returned.

The memory itself is elsewhere: a call that writes into a block other sequences share says what has to be
copied first. After Kwon et al., Efficient Memory Management for Large Language Model Serving with
PagedAttention, 2023.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field

from glm3.domain.errors import BackendError, InvalidInputError

__all__ = ["BlockManager"]


@define
class _Sequence:
    blocks: list[int] = field(factory=list)
    length: int = 0


class BlockManager:
    """Keep the tables of sequences over ``num_blocks`` blocks of ``block_size`` tokens.

    The first ``reserved`` blocks are never handed out: padding can be written there.

    Raises:
        InvalidInputError: a size is not positive, or every block is reserved.
    """

    def __init__(self, num_blocks: int, block_size: int, *, reserved: int = 0) -> None:
        if block_size < 1 or reserved < 0 or num_blocks <= reserved:
            raise InvalidInputError(
                "a pool needs blocks",
                field="num_blocks",
                expected=f"more than {reserved} of at least 1 token",
                found=f"{num_blocks} of {block_size}",
            )
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = list(range(num_blocks - 1, reserved - 1, -1))
        self._references = [0] * num_blocks
        self._sequences: dict[int, _Sequence] = {}

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    @property
    def sequences(self) -> tuple[int, ...]:
        return tuple(self._sequences)

    def references(self, block: int) -> int:
        """Return how many sequences hold a block."""
        return self._references[block]

    def length(self, sequence: int) -> int:
        return self._of(sequence).length

    def table(self, sequence: int) -> tuple[int, ...]:
        """Return the blocks of a sequence in order."""
        return tuple(self._of(sequence).blocks)

    def slots(self, sequence: int, start: int = 0) -> list[int]:
        """Return where in the pool each token from ``start`` on is: block times ``block_size`` plus place."""
        held, size = self._of(sequence), self.block_size
        return [held.blocks[p // size] * size + p % size for p in range(start, held.length)]

    def allocate(self, sequence: int, tokens: int = 0) -> None:
        """Begin a sequence of ``tokens``.

        Raises:
            InvalidInputError: the sequence is there already.
            BackendError: as :meth:`append`; nothing is changed then.
        """
        if sequence in self._sequences:
            raise InvalidInputError("the sequence is there already", field="sequence", found=sequence)
        self._sequences[sequence] = _Sequence()
        try:
            self.append(sequence, tokens)
        except BackendError:
            del self._sequences[sequence]
            raise

    def append(self, sequence: int, tokens: int = 1) -> Sequence[tuple[int, int]]:
        """Make room for more tokens; return ``(source, target)`` of a block to copy before they are written.

        Raises:
            BackendError: the pool has too few free blocks; nothing is changed.
        """
        held = self._of(sequence)
        length = held.length + tokens
        shared = self._shared_tail(held) if tokens else None
        needed = -(-length // self.block_size) - len(held.blocks) + (shared is not None)
        if needed > len(self._free):
            raise BackendError(
                "block pool is out of memory",
                field="num_blocks",
                expected=f"{needed} free blocks of {self.block_size} tokens",
                found=f"{len(self._free)} of {self.num_blocks}",
                hint="set model_config.num_blocks, free sequences, or serve fewer at once",
            )
        copies = []
        if shared is not None:
            source = held.blocks[shared]
            held.blocks[shared] = self._take()
            self._release(source)
            copies.append((source, held.blocks[shared]))
        while len(held.blocks) * self.block_size < length:
            held.blocks.append(self._take())
        held.length = length
        return copies

    def append_in_place(self, sequence: int, tokens: int) -> bool:
        """Append tokens where they fit into the last block and no other sequence has it; tell whether so."""
        held = self._sequences[sequence]
        used = held.length % self.block_size
        if not used or used + tokens > self.block_size or self._references[held.blocks[-1]] > 1:
            return False
        held.length += tokens
        return True

    def growth(self, tokens: Iterable[tuple[int, int]]) -> int:
        """Return how many free blocks it takes to append so many tokens to each of these sequences."""
        size, needed = self.block_size, 0
        copied: Counter[int] = Counter()
        for sequence, count in tokens:
            held = self._of(sequence)
            needed += -(-(held.length + count) // size) - len(held.blocks)
            if count and held.length % size:
                tail = held.blocks[-1]
                if self._references[tail] - copied[tail] > 1:
                    copied[tail] += 1
                    needed += 1
        return needed

    def demand(self, lengths: Mapping[int, int]) -> int:
        """Return how many blocks these sequences would hold, had each grown to its length, without others."""
        size, grown = self.block_size, 0
        holders: Counter[int] = Counter()
        writers: Counter[int] = Counter()
        for sequence, length in lengths.items():
            held = self._of(sequence)
            holders.update(held.blocks)
            grown += max(0, -(-length // size) - len(held.blocks))
            if length > held.length and held.length % size:
                writers[held.blocks[-1]] += 1
        copies = sum(count - (holders[block] == count) for block, count in writers.items())
        return len(holders) + grown + copies

    def fork(self, source: int, target: int, length: int | None = None) -> None:
        """Begin ``target`` as what ``source`` holds, or its first ``length`` tokens, sharing every block.

        Raises:
            InvalidInputError: ``source`` is not there or does not hold so many, or ``target`` is.
        """
        if target in self._sequences:
            raise InvalidInputError("the sequence is there already", field="sequence", found=target)
        held = self._of(source)
        if length is None:
            length = held.length
        self._require_held(held, length)
        blocks = held.blocks[: -(-length // self.block_size)]
        for block in blocks:
            self._references[block] += 1
        self._sequences[target] = _Sequence(blocks, length)

    def truncate(self, sequence: int, length: int) -> None:
        """Forget the tokens from ``length`` on and return blocks that hold none any more.

        Raises:
            InvalidInputError: the sequence does not hold so many.
        """
        held = self._of(sequence)
        self._require_held(held, length)
        kept = -(-length // self.block_size)
        for block in held.blocks[kept:]:
            self._release(block)
        del held.blocks[kept:]
        held.length = length

    def free(self, sequence: int) -> None:
        """End a sequence; blocks that no other one shares return to the pool."""
        self.truncate(sequence, 0)
        del self._sequences[sequence]

    def _of(self, sequence: int) -> _Sequence:
        try:
            return self._sequences[sequence]
        except KeyError:
            raise InvalidInputError("no such sequence", field="sequence", found=sequence) from None

    @staticmethod
    def _require_held(held: _Sequence, length: int) -> None:
        if not 0 <= length <= held.length:
            raise InvalidInputError(
                "no such length", field="length", expected=f"0 to {held.length}", found=length
            )

    def _shared_tail(self, held: _Sequence) -> int | None:
        """Return the place of the block that the next token goes to, if it is there and shared."""
        place = held.length // self.block_size
        if place < len(held.blocks) and self._references[held.blocks[place]] > 1:
            return place
        return None

    def _take(self) -> int:
        block = self._free.pop()
        self._references[block] = 1
        return block

    def _release(self, block: int) -> None:
        self._references[block] -= 1
        if self._references[block] == 0:
            self._free.append(block)

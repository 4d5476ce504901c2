from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.domain.context_window import fit
from glm3.domain.conversation import Message, Role, check_dialogue
from glm3.domain.errors import ContextLengthError
from glm3.domain.prompt import PromptBuilder

BUILDER = PromptBuilder(ByteTokenizer())
SYSTEM = Message(Role.SYSTEM, "system")
OLD = [Message(Role.USER, "old"), Message(Role.ASSISTANT, "call", "f"), Message(Role.OBSERVATION, "result"),
       Message(Role.ASSISTANT, "answer")]  # fmt: skip
LAST = [Message(Role.USER, "last")]


def length(messages):
    return len(BUILDER.build(messages))


def test_what_fits_is_left_alone_to_the_last_token():
    messages = [SYSTEM, *OLD, *LAST]
    assert fit(messages, BUILDER, length(messages) + 5, 5, trim=False) == (messages, 0)


def test_without_trimming_too_long_is_an_error_with_both_lengths():
    messages = [SYSTEM, *OLD, *LAST]
    with pytest.raises(ContextLengthError) as caught:
        fit(messages, BUILDER, length(messages) + 4, 5, trim=False)
    assert str(length(messages)) in str(caught.value)
    assert str(length(messages) + 4) in str(caught.value)


def test_the_oldest_exchange_goes_whole():
    """Not even the room for its answer alone would keep a part of it."""
    messages = [SYSTEM, *OLD, *LAST]
    assert fit(messages, BUILDER, length(messages) - 1, 0, trim=True) == ([SYSTEM, *LAST], 4)


def test_an_answer_to_the_system_message_is_the_first_to_go():
    greeting = Message(Role.ASSISTANT, "hello")
    messages = [SYSTEM, greeting, *OLD, *LAST]
    assert fit(messages, BUILDER, length(messages) - 1, 0, trim=True) == ([SYSTEM, *OLD, *LAST], 1)


def test_the_last_turn_is_kept_with_its_call_and_result():
    messages = [*LAST, *OLD[1:3]]
    with pytest.raises(ContextLengthError, match="last turn alone"):
        fit([*OLD, *messages], BUILDER, length(messages) - 1, 0, trim=True)
    assert fit([*OLD, *messages], BUILDER, length(messages), 0, trim=True) == (messages, 4)


def test_without_a_user_turn_nothing_can_go():
    with pytest.raises(ContextLengthError):
        fit([SYSTEM, Message(Role.ASSISTANT, "hello")], BUILDER, 12, 0, trim=True)


exchange = st.sampled_from([OLD, OLD[:1], [OLD[0], OLD[3]]])


@given(exchanges=st.lists(exchange, max_size=4), system=st.booleans(), room=st.integers(0, 200))
def test_trimming_drops_no_more_than_needed_and_leaves_a_legal_dialogue(exchanges, system, room):
    head = [SYSTEM] if system else []
    messages = [*head, *(message for turn in exchanges for message in turn), *LAST]
    try:
        kept, dropped = fit(messages, BUILDER, room, 0, trim=True)
    except ContextLengthError:
        assert length([*head, *LAST]) > room
        return
    check_dialogue(kept)
    assert length(kept) <= room
    assert len(kept) + dropped == len(messages)
    assert kept == [*head, *messages[len(head) + dropped :]]
    sizes = [len(turn) for turn in exchanges]
    boundaries = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
    assert dropped in boundaries
    if dropped:
        fewer = boundaries[boundaries.index(dropped) - 1]
        assert length([*head, *messages[len(head) + fewer :]]) > room

"""Dialogues kept on the server: who may use them, how many, how large, how long."""

from __future__ import annotations

import pytest

from glm3.application.serving.sessions import SessionLimits, SessionStore
from glm3.domain.conversation import Message, Role, ToolSpec
from glm3.domain.errors import ContextLengthError, OverloadedError, UnknownSessionError

SYSTEM = Message(Role.SYSTEM, "Be brief.")
USER = Message(Role.USER, "hello")
ANSWER = Message(Role.ASSISTANT, "Hi.")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def store(clock: Clock | None = None, **limits) -> SessionStore:
    return SessionStore(SessionLimits(**limits), clock or Clock())


def test_a_turn_becomes_part_of_the_session():
    sessions = store()
    made = sessions.create("ann", [SYSTEM])
    with sessions.turn("ann", made.id, [USER]) as session:
        sessions.extend(session, [USER, ANSWER])
    assert sessions.get("ann", made.id).messages == (SYSTEM, USER, ANSWER)


def test_a_turn_that_fails_leaves_no_trace():
    sessions = store()
    made = sessions.create("ann", [SYSTEM])
    with pytest.raises(ZeroDivisionError), sessions.turn("ann", made.id, [USER]):
        raise ZeroDivisionError
    assert sessions.get("ann", made.id).messages == (SYSTEM,)
    with sessions.turn("ann", made.id, [USER]):
        pass


def test_a_session_is_its_owners_and_its_name_cannot_be_guessed():
    sessions = store()
    made = sessions.create("ann")
    assert len(made.id) >= 20
    assert made.id != sessions.create("ann").id
    for use in (sessions.get, sessions.delete):
        with pytest.raises(UnknownSessionError) as caught:
            use("bob", made.id)
        assert caught.value.field == "session_id"
    sessions.delete("ann", made.id)
    with pytest.raises(UnknownSessionError):
        sessions.get("ann", made.id)


def test_only_one_turn_is_answered_at_a_time():
    sessions = store()
    made = sessions.create("ann")
    turn = sessions.turn("ann", made.id, [USER])
    with turn, pytest.raises(OverloadedError), sessions.turn("ann", made.id, [USER]):
        pass
    with sessions.turn("ann", made.id, [USER]):
        pass


def test_what_nobody_uses_is_forgotten_and_what_is_used_is_not():
    clock = Clock()
    sessions = store(clock, idle_seconds=10)
    idle, used, busy = (sessions.create("ann").id for _ in range(3))
    with sessions.turn("ann", busy, [USER]):
        clock.now += 6
        sessions.get("ann", used)
        clock.now += 6
        assert sessions.count == 2
        with pytest.raises(UnknownSessionError):
            sessions.get("ann", idle)
        sessions.get("ann", used)
    clock.now += 9
    sessions.get("ann", busy)
    clock.now += 2
    assert sessions.count == 1


def test_a_full_store_says_when_to_come_again():
    clock = Clock()
    sessions = store(clock, sessions=3, per_client=2, idle_seconds=10)
    sessions.create("ann")
    clock.now += 4
    sessions.create("ann")
    with pytest.raises(OverloadedError, match="this client") as own:
        sessions.create("ann")
    assert own.value.retry_after == 6
    sessions.create("bob")
    with pytest.raises(OverloadedError) as caught:
        sessions.create("eve")
    assert caught.value.retry_after == 6
    clock.now += 6
    sessions.create("eve")


def test_no_session_is_larger_than_it_may_be():
    sessions = store(session_bytes=50)
    with pytest.raises(ContextLengthError):
        sessions.create("ann", [Message(Role.USER, "你" * 17)])
    with pytest.raises(ContextLengthError):
        sessions.create("ann", [], [ToolSpec("look", {"name": "look", "description": "x" * 50})])
    made = sessions.create("ann", [Message(Role.USER, "x" * 50)])
    with pytest.raises(ContextLengthError) as caught, sessions.turn("ann", made.id, [USER]):
        pass
    assert caught.value.field == "messages"
    with sessions.turn("ann", made.id, []):
        pass


def test_deleting_a_session_lets_its_turn_go_on():
    sessions = store()
    made = sessions.create("ann")
    with sessions.turn("ann", made.id, [USER]) as session:
        sessions.delete("ann", made.id)
        sessions.extend(session, [USER, ANSWER])
    assert sessions.count == 0

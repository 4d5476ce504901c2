"""Dialogues that the service keeps for those who began them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from secrets import token_urlsafe
from time import monotonic

from attrs import define, field, frozen, validators

from glm3.domain.conversation import Message, ToolSpec
from glm3.domain.errors import ContextLengthError, OverloadedError, UnknownSessionError

__all__ = ["Session", "SessionLimits", "SessionStore"]

Clock = Callable[[], float]

_ID_BYTES = 18


@frozen(kw_only=True)
class SessionLimits:
    """Bounds of what is kept: sessions in all and of one client, bytes of text each, seconds without use."""

    sessions: int = field(default=1024, validator=validators.ge(0))
    per_client: int = field(default=128, validator=validators.gt(0))
    session_bytes: int = field(default=256 * 1024, validator=validators.gt(0))
    idle_seconds: float = field(default=1800.0, validator=validators.gt(0.0))


@define(eq=False)
class Session:
    """A dialogue; ``messages`` hold no tools, which are shown to the model in every turn."""

    id: str
    client: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    used: float = 0.0
    busy: bool = False


class SessionStore:
    """Keep sessions in memory; its methods belong to one event loop.

    Sessions that nobody has used for ``idle_seconds`` are forgotten; one that is being answered is in use.
    """

    def __init__(self, limits: SessionLimits | None = None, clock: Clock = monotonic) -> None:
        self.limits = limits or SessionLimits()
        self._clock = clock
        self._sessions: dict[str, Session] = {}  # the one unused for longest first

    @property
    def count(self) -> int:
        """How many sessions are kept at this moment."""
        self._forget_idle()
        return len(self._sessions)

    def create(
        self, client: str, messages: Sequence[Message] = (), tools: Sequence[ToolSpec] = ()
    ) -> Session:
        """Begin a session for ``client``.

        Raises:
            OverloadedError: there are as many as may be; it says when the first of them is forgotten.
            ContextLengthError: it is too large.
        """
        self._forget_idle()
        own = [session for session in self._sessions.values() if session.client == client]
        if len(own) >= self.limits.per_client:
            self._refuse(own, "this client has as many sessions as it may")
        if len(self._sessions) >= self.limits.sessions:
            self._refuse(list(self._sessions.values()), "there are as many sessions as may be")
        session = Session(token_urlsafe(_ID_BYTES), client, (), tuple(tools), self._clock())
        session.messages = self._checked(session, messages)
        self._sessions[session.id] = session
        return session

    def get(self, client: str, session_id: str) -> Session:
        """Return a session of ``client``, which counts as use.

        Raises:
            UnknownSessionError: it has none of that name, or has none any more.
        """
        self._forget_idle()
        session = self._sessions.get(session_id)
        if session is None or session.client != client:
            raise UnknownSessionError(
                "there is no such session",
                field="session_id",
                found=repr(session_id[:100]),
                hint=f"sessions end after {self.limits.idle_seconds:g} s without use; begin a new one",
            )
        self._use(session)
        return session

    def delete(self, client: str, session_id: str) -> None:
        """Forget a session; raises as :meth:`get` does."""
        del self._sessions[self.get(client, session_id).id]

    @contextmanager
    def turn(self, client: str, session_id: str, added: Sequence[Message]) -> Iterator[Session]:
        """Yield a session that nobody else can add to in the block.

        ``added`` is what the turn begins with: its size is checked, nothing is stored.

        Raises:
            UnknownSessionError: as :meth:`get`.
            OverloadedError: another turn of it is being answered.
            ContextLengthError: it would be too large.
        """
        session = self.get(client, session_id)
        if session.busy:
            raise OverloadedError("another turn of this session is being answered")
        self._checked(session, added)
        session.busy = True
        try:
            yield session
        finally:
            session.busy = False
            self._use(session)

    def extend(self, session: Session, messages: Sequence[Message]) -> None:
        """Add a complete turn; the next one is refused where this makes the session too large."""
        session.messages = (*session.messages, *messages)

    def _checked(self, session: Session, added: Sequence[Message]) -> tuple[Message, ...]:
        messages = (*session.messages, *added)
        size = sum(len(text.encode()) for message in messages for text in (message.content, message.metadata))
        size += sum(len(repr(tool.definition).encode()) for tool in session.tools)
        if size > self.limits.session_bytes:
            raise ContextLengthError(
                "the session is too long",
                field="messages",
                expected=f"at most {self.limits.session_bytes} bytes of text",
                found=f"{size} bytes",
                hint="begin a new session",
            )
        return messages

    def _use(self, session: Session) -> None:
        session.used = self._clock()
        if self._sessions.pop(session.id, None) is not None:
            self._sessions[session.id] = session

    def _forget_idle(self) -> None:
        oldest = self._clock() - self.limits.idle_seconds
        gone = []
        for session in self._sessions.values():
            if session.used > oldest:
                break
            if not session.busy:
                gone.append(session.id)
        for session_id in gone:
            del self._sessions[session_id]

    def _refuse(self, sessions: Sequence[Session], message: str) -> None:
        first = min((session.used for session in sessions), default=self._clock())
        wait = max(1.0, first + self.limits.idle_seconds - self._clock())
        raise OverloadedError(message, retry_after=wait, hint="delete sessions that are no longer needed")

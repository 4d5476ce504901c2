"""Who may ask, and how often."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Mapping
from time import monotonic

from glm3.domain.errors import AccessDeniedError, OverloadedError

__all__ = ["AccessPolicy", "RateLimiter"]

Clock = Callable[[], float]

_FORGET_ABOVE = 10_000  # clients


class RateLimiter:
    """Let each client ask ``per_minute`` times a minute on average, and as often at once after a pause."""

    def __init__(self, per_minute: float, clock: Clock = monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}  # requests left, and when that was so

    def take(self, client: str) -> None:
        """Count one request.

        Raises:
            OverloadedError: the client has asked too often; it says when to ask again.
        """
        with self._lock:
            now = self._clock()
            left, since = self._left.get(client, (self._per_minute, now))
            left = min(self._per_minute, left + (now - since) * self._per_minute / 60)
            if left < 1:
                raise OverloadedError(
                    f"more than {self._per_minute:g} requests a minute",
                    retry_after=(1 - left) * 60 / self._per_minute,
                )
            if len(self._left) >= _FORGET_ABOVE:
                self._left.clear()
            self._left[client] = left - 1, now


class AccessPolicy:
    """Recognise callers by their bearer tokens.

    Args:
        tokens: the name of each client and its token; none lets everybody in.
        requests_per_minute: of each client; None means no limit.
    """

    def __init__(
        self, tokens: Mapping[str, str] | None = None, requests_per_minute: float | None = None
    ) -> None:
        self._tokens = {name: token.encode() for name, token in (tokens or {}).items()}
        self._limiter = None if requests_per_minute is None else RateLimiter(requests_per_minute)

    @property
    def anonymous(self) -> bool:
        """Whether callers need no token."""
        return not self._tokens

    def identify(self, token: str | None, peer: str) -> str:
        """Return the name of the client that calls.

        Args:
            token: what it presented, if anything.
            peer: where it calls from; without tokens clients are told apart by that.

        Raises:
            AccessDeniedError: it has no token, or none that is known.
        """
        if not self._tokens:
            return peer
        if token is None:
            raise AccessDeniedError(
                "a token is needed", field="Authorization", expected="Bearer TOKEN", found="none"
            )
        presented = token.encode(errors="surrogateescape")
        # Every token is compared, each in constant time, so the time taken tells nothing about any of them.
        matches = [name for name, known in self._tokens.items() if hmac.compare_digest(presented, known)]
        if not matches:
            raise AccessDeniedError("the token is not known here", field="Authorization")
        return matches[0]

    def admit(self, client: str) -> None:
        """Count a request of the client.

        Raises:
            OverloadedError: it asks too often.
        """
        if self._limiter is not None:
            self._limiter.take(client)

"""How the HTTP server behaves towards its clients."""

from __future__ import annotations

from attrs import frozen

__all__ = ["HttpSettings"]


@frozen(kw_only=True)
class HttpSettings:
    """Bounds and permissions.

    Args:
        body_bytes: the largest body that is read.
        body_seconds: how long a client may take to send a body.
        send_seconds: how long a reader may take for one event of a stream.
        cors_origins: pages of these origins may use the server; none by default.
        loopback_only: answer to this machine's own names only.
        log_content: write prompts and answers to the log.
    """

    body_bytes: int = 4 * 2**20
    body_seconds: float = 60.0
    send_seconds: float = 60.0
    cors_origins: tuple[str, ...] = ()
    loopback_only: bool = True
    log_content: bool = False

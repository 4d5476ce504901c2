"""Find a port of this machine that nobody listens at."""

from __future__ import annotations

import socket

from glm3.domain.errors import UsageError

__all__ = ["free_port", "require_free"]


def free_port() -> int:
    """Return one that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int) -> None:
    """Check that the scheduler of a job can listen here.

    Raises:
        UsageError: somebody else does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UsageError(
                f"the port cannot be used: {error.strerror}",
                field="--master-port",
                found=port,
                hint="another job of this machine may use it; choose another port on all machines",
            ) from None

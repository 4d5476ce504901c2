"""How many connections a process may hold."""

from __future__ import annotations

import resource

__all__ = ["allow_open_files"]

_ENOUGH = 65_536


def allow_open_files(most: int = _ENOUGH) -> int:
    """Raise this process's limit of open files as far as the system lets it, and return the limit.

    Each connection is one. The usual 1,024 are used up by idle clients, and then nobody else gets in.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return most
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(wanted, soft)

"""Addresses to listen at."""

from __future__ import annotations

import ipaddress
import re
import socket

from attrs import frozen

from glm3.domain.errors import StorageError, UsageError

__all__ = ["Address", "bind", "check_exposure"]

_WRITTEN = re.compile(r"(?:(?P<host>\[[^\]]+\]|[^:\[\]]*):)?(?P<port>\d{1,5})")
_BACKLOG = 2048


@frozen
class Address:
    """A host and a port; port 0 lets the system choose one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str) -> Address:
        """Read ``HOST:PORT``, ``[IPV6]:PORT`` or a bare port of this machine's own address.

        Raises:
            UsageError: it is none of these.
        """
        match = _WRITTEN.fullmatch(text)
        if match is None or int(match["port"]) > 65535:
            raise UsageError("not an address", field=option, expected="HOST:PORT", found=text)
        host = (match["host"] or "127.0.0.1").strip("[]")
        return cls(host, int(match["port"]))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bind(address: Address) -> socket.socket:
    """Return a socket that listens at the address.

    Raises:
        StorageError: the system refuses, for example because another process listens there.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise StorageError(
            f"cannot listen at {address}: {error.strerror}", hint="choose another port, or stop what uses it"
        ) from None


def check_exposure(address: Address, option: str, *, guarded: bool) -> None:
    """Refuse to let others in who show nothing.

    Args:
        address: where the server listens.
        option: names the address in the message.
        guarded: callers must show a token or a certificate, or the user wants it open.

    Raises:
        UsageError: others could use the server.
    """
    if not (address.is_loopback or guarded):
        raise UsageError(
            "others could use this server without a token",
            field=option,
            found=str(address),
            hint="set GLM3_TOKEN, give --token-file, or say --allow-anonymous",
        )

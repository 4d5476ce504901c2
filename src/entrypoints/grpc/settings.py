"""How the gRPC server behaves towards its clients."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
from attrs import frozen

from glm3.domain.errors import ConfigError, Glm3Error, MissingFileError

__all__ = ["GrpcSettings", "TlsFiles"]


@frozen(kw_only=True)
class TlsFiles:
    """PEM files; with ``client_ca`` only clients with a certificate of that authority are let in."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Return what the server shows and demands.

        Raises:
            MissingFileError: a file is not there.
            ConfigError: a file holds no PEM of its kind, or the key belongs to another certificate.
        """
        certificate, key = _read(self.certificate), _read(self.key)
        authority = None if self.client_ca is None else _read(self.client_ca)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password="")
        except (ssl.SSLError, ValueError):
            raise _wrong(
                self.certificate, f"a PEM certificate, and its unencrypted key in {self.key}"
            ) from None
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except ssl.SSLError:
                raise _wrong(self.client_ca, "PEM certificates") from None
        return grpc.ssl_server_credentials([(key, certificate)], authority, authority is not None)


@frozen(kw_only=True)
class GrpcSettings:
    """Bounds and permissions.

    Args:
        message_bytes: the largest message that is read.
        send_seconds: how long a reader may take for one delta of a stream.
        keepalive_seconds: without a word from a client it is asked after so long whether it still lives.
        idle_seconds: connections without any call are closed after so long.
        log_content: write prompts and answers to the log.
        tls: encrypt; without it anybody on the way can read along.
    """

    message_bytes: int = 4 * 2**20
    send_seconds: float = 60.0
    keepalive_seconds: float = 60.0
    idle_seconds: float = 300.0
    log_content: bool = False
    tls: TlsFiles | None = None

    def channel_options(self) -> list[tuple[str, int]]:
        """Return the settings that gRPC's core knows."""
        keepalive = round(self.keepalive_seconds * 1000)
        return [
            ("grpc.so_reuseport", 0),  # or two servers would share a port, and each get some of the calls
            ("grpc.max_receive_message_length", self.message_bytes),
            ("grpc.max_connection_idle_ms", round(self.idle_seconds * 1000)),
            ("grpc.keepalive_time_ms", keepalive),
            ("grpc.keepalive_timeout_ms", min(keepalive, _KEEPALIVE_TIMEOUT_MS)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _PINGS_OF_CLIENTS_MS),
        ]


_KEEPALIVE_TIMEOUT_MS = 20_000
_PINGS_OF_CLIENTS_MS = 10_000


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise MissingFileError("there is no such file", path=path) from None


def _wrong(path: Path, expected: str) -> Glm3Error:
    return ConfigError("cannot be used for TLS", path=path, expected=expected)

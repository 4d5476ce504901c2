"""The servers that ``glm3 serve`` runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.lifecycle import Lifecycle
from glm3.application.serving.sessions import SessionLimits, SessionStore
from glm3.domain.errors import UsageError
from glm3.entrypoints.serving.address import Address, bind, check_exposure
from glm3.entrypoints.serving.frontend import Frontend

if TYPE_CHECKING:
    from glm3.adapters.prometheus.serving_metrics import ServingMetrics
    from glm3.entrypoints.grpc.settings import TlsFiles

__all__ = ["FrontendOptions"]


@frozen(kw_only=True)
class FrontendOptions:
    """What the command line says about servers.

    Args:
        http, grpc: addresses; None means no such server.
        tokens: of the clients, by name.
        allow_anonymous: whether anybody may ask at a public address.
        rate: requests a minute of each client.
        body_bytes: the largest request.
        cors_origins: pages that may use the HTTP server.
        certificate, key, client_ca: PEM files of the gRPC server.
        keepalive_seconds: after which a silent gRPC client is asked whether it lives.
        sessions: bounds of what is kept for gRPC clients.
        log_content: write prompts and answers to the log.
    """

    http: str | None
    grpc: str | None
    tokens: Mapping[str, str]
    allow_anonymous: bool
    rate: float | None
    body_bytes: int
    cors_origins: tuple[str, ...]
    certificate: Path | None
    key: Path | None
    client_ca: Path | None
    keepalive_seconds: float
    sessions: SessionLimits
    log_content: bool

    def check(self) -> None:
        """Check what can be checked before anything is loaded.

        Raises:
            UsageError: there is no server, an address is none, options for TLS are incomplete, or others
                could use a server without showing anything.
        """
        if self.http is None and self.grpc is None:
            raise UsageError(
                "there is no server left to start", expected="at most one of --no-http, --no-grpc"
            )
        if (self.certificate is None) != (self.key is None):
            raise UsageError(
                "a certificate and its key go together", expected="--grpc-tls-cert and --grpc-tls-key"
            )
        if self.client_ca is not None and self.certificate is None:
            raise UsageError(
                "only an encrypted server can ask for certificates",
                field="--grpc-client-ca",
                expected="--grpc-tls-cert and --grpc-tls-key beside it",
            )
        guarded = bool(self.tokens) or self.allow_anonymous
        if self.http is not None:
            check_exposure(Address.parse(self.http, "--http"), "--http", guarded=guarded)
        if self.grpc is not None:
            address = Address.parse(self.grpc, "--grpc")
            check_exposure(address, "--grpc", guarded=guarded or self.client_ca is not None)

    def open(self, lifecycle: Lifecycle, metrics: ServingMetrics) -> list[Frontend]:
        """Return the servers, which listen already; they belong to the running event loop.

        Raises:
            Glm3Error: an address is taken, or the files for TLS cannot be used.
        """
        access = AccessPolicy(self.tokens, self.rate)
        frontends: list[Frontend] = []
        if self.http is not None:
            frontends.append(self._http(Address.parse(self.http, "--http"), lifecycle, access, metrics))
        if self.grpc is not None:
            frontends.append(self._grpc(Address.parse(self.grpc, "--grpc"), lifecycle, access, metrics))
        return frontends

    def _http(
        self, address: Address, lifecycle: Lifecycle, access: AccessPolicy, metrics: ServingMetrics
    ) -> Frontend:
        from glm3.entrypoints.http.app import build_app
        from glm3.entrypoints.http.server import HttpServer
        from glm3.entrypoints.http.settings import HttpSettings

        settings = HttpSettings(
            body_bytes=self.body_bytes,
            cors_origins=self.cors_origins,
            loopback_only=address.is_loopback and not self.tokens,
            log_content=self.log_content,
        )
        return HttpServer(build_app(lifecycle, access, metrics, settings), bind(address))

    def _grpc(
        self, address: Address, lifecycle: Lifecycle, access: AccessPolicy, metrics: ServingMetrics
    ) -> Frontend:
        from glm3.entrypoints.grpc.server import GrpcServer
        from glm3.entrypoints.grpc.settings import GrpcSettings

        settings = GrpcSettings(
            message_bytes=self.body_bytes,
            keepalive_seconds=self.keepalive_seconds,
            log_content=self.log_content,
            tls=self._tls(),
        )
        return GrpcServer(lifecycle, access, SessionStore(self.sessions), metrics, settings, address)

    def _tls(self) -> TlsFiles | None:
        from glm3.entrypoints.grpc.settings import TlsFiles

        if self.certificate is None or self.key is None:
            return None
        return TlsFiles(certificate=self.certificate, key=self.key, client_ca=self.client_ca)

"""What the command line may say about servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from glm3.application.serving.sessions import SessionLimits
from glm3.domain.errors import UsageError
from glm3.entrypoints.cli.frontends import FrontendOptions

LOOPBACK, PUBLIC = "127.0.0.1:0", "0.0.0.0:0"
PEM = Path("x.pem")


def options(**changes: Any) -> FrontendOptions:
    plain: dict[str, Any] = {
        "http": LOOPBACK,
        "grpc": LOOPBACK,
        "tokens": {},
        "allow_anonymous": False,
        "rate": None,
        "body_bytes": 2**20,
        "cors_origins": (),
        "certificate": None,
        "key": None,
        "client_ca": None,
        "keepalive_seconds": 60.0,
        "sessions": SessionLimits(),
        "log_content": False,
    }
    return FrontendOptions(**{**plain, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"http": None},
        {"grpc": None},
        {"http": PUBLIC, "grpc": PUBLIC, "tokens": {"ann": "a" * 20}},
        {"http": PUBLIC, "grpc": PUBLIC, "allow_anonymous": True},
        {"grpc": PUBLIC, "certificate": PEM, "key": PEM, "client_ca": PEM},
    ],
)
def test_what_is_safe_is_accepted(changes):
    options(**changes).check()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"http": None, "grpc": None}, None),
        ({"http": PUBLIC}, "--http"),
        ({"grpc": PUBLIC}, "--grpc"),
        ({"http": "nowhere"}, "--http"),
        ({"grpc": "nowhere"}, "--grpc"),
        ({"certificate": PEM}, None),
        ({"key": PEM}, None),
        ({"client_ca": PEM}, "--grpc-client-ca"),
        ({"grpc": PUBLIC, "certificate": PEM, "key": PEM}, "--grpc"),
        ({"http": PUBLIC, "certificate": PEM, "key": PEM, "client_ca": PEM}, "--http"),
    ],
)
def test_what_would_let_strangers_in_or_cannot_be_done_is_refused(changes, field):
    with pytest.raises(UsageError) as caught:
        options(**changes).check()
    assert caught.value.field == field

"""The bearer tokens of those who may ask."""

from __future__ import annotations

import os
from pathlib import Path

from glm3.domain.errors import ConfigError, MissingFileError

__all__ = ["TOKEN_VARIABLE", "read_tokens"]

TOKEN_VARIABLE = "GLM3_TOKEN"  # noqa: S105  # a name, not a secret
_SHORTEST = 16


def read_tokens(path: Path | None) -> dict[str, str]:
    """Return the tokens by client, from the environment and from a file of lines ``name: token``.

    Empty lines and lines that begin with ``#`` count as none. Tokens never come from the command line,
    which every user of the machine can read.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: a line has another form, a name occurs twice, or a token is too short to be one.
    """
    tokens: dict[str, str] = {}
    if value := os.environ.get(TOKEN_VARIABLE):
        _check(value, None, None)
        tokens["default"] = value
    if path is None:
        return tokens
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        raise MissingFileError("there is no such file of tokens", path=path) from None
    except UnicodeDecodeError:
        raise ConfigError("is not a file of tokens", path=path, expected="lines 'name: token'") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, token = (part.strip() for part in line.partition(":"))
        if not colon or not name:
            raise ConfigError("is no token", path=path, line=number, expected="name: token")
        if name in tokens:
            raise ConfigError("names a client twice", path=path, line=number, found=name)
        _check(token, path, number)
        tokens[name] = token
    return tokens


def _check(token: str, path: Path | None, line: int | None) -> None:
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            "the token can be guessed, or not be sent",
            path=path,
            line=line,
            field=None if path else TOKEN_VARIABLE,
            expected=f"at least {_SHORTEST} printable ASCII characters without spaces",
            found=f"{len(token)} characters",
            hint="openssl rand -hex 32 makes one",
        )

"""A typer command that sets up logging when it really runs, not for its ``--help``."""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import TyperCommand

from glm3.entrypoints.cli.settings import Settings

__all__ = ["Command", "settings_of", "typer_commands"]


class Command(TyperCommand):
    """Configure the log lines as the global options say, then do the work."""

    def invoke(self, ctx: Any) -> Any:
        """See :class:`typer.core.TyperCommand`; structlog takes a tenth of a second to import."""
        from glm3.entrypoints.cli.logs import configure

        settings = settings_of(ctx)
        configure(settings.log_format, settings.log_level)
        if settings.offline:  # started processes, and the doctor's report, follow the option too
            os.environ["GLM3_OFFLINE"] = "1"
        return super().invoke(ctx)


def typer_commands(app: typer.Typer) -> dict[str, Any]:
    """Return the commands of an application by name."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return commands


def settings_of(context: typer.Context) -> Settings:
    """Return the global options of this call."""
    return context.find_object(Settings) or Settings()

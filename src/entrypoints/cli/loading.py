"""What the commands get from the container."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glm3.entrypoints.cli.output import note
from glm3.entrypoints.cli.progress import progress
from glm3.entrypoints.cli.settings import Settings

if TYPE_CHECKING:
    from glm3.application.load_model import LoadedModel
    from glm3.domain.ports.backend import LoadOptions
    from glm3.domain.ports.communicator import Communicator
    from glm3.domain.run_config import RunConfig
    from glm3.entrypoints.container import Container

__all__ = ["container", "open_model", "open_run", "weights_named"]


def container(settings: Settings) -> Container:
    """Return the container for one call."""
    from glm3.entrypoints.container import build_container

    return build_container(offline=settings.offline or None)


def open_model(
    settings: Settings,
    name: str,
    options: LoadOptions | None = None,
    *,
    adapter: Path | None = None,
    quiet: bool = False,
) -> LoadedModel:
    """Load a model by name, folder or file, with an adapter if there is one, downloading what is missing.

    Raises:
        Glm3Error: it cannot be found or loaded.
    """
    if not quiet:
        note(f"loading {name} ...")
    with progress("downloading", quiet=quiet) as report:
        return (
            container(settings)
            .models()
            .load(name, options, lambda file, done, total: report(done, total, file), adapter)
        )


def open_run(settings: Settings, config: RunConfig, communicator: Communicator | None = None) -> LoadedModel:
    """Load the model that the file of a run describes, on every rank of a job.

    Raises:
        Glm3Error: it cannot be found or loaded.
    """
    from glm3.application.generation_file import generation_beside
    from glm3.application.load_model import LoadedModel
    from glm3.application.predict_source import predict_source

    services = container(settings)
    models = services.models()
    with progress("downloading") as report:
        source = predict_source(
            config,
            models.sources,
            models.stores,
            services.strategies(),
            lambda file, done, total: report(done, total, file),
            communicator,
        )
    note(f"loading {source.weights} ...")
    tokenizer, generation = models.tokenizer_of(source), generation_beside(source.weights)
    return LoadedModel(models.model_of(source), tokenizer, source, generation)


def weights_named(settings: Settings, path: Path) -> Path:
    """Return where weights lie: a path as it is, and of a known model's name what is here or downloaded.

    Raises:
        DownloadError: they are not here and cannot be fetched.
    """
    sources = container(settings).sources()
    if path.exists() or str(path) not in sources.names():
        return path
    with progress("downloading") as report:
        found = sources.resolve(
            path, with_tokenizer=False, progress=lambda file, done, total: report(done, total, file)
        )
    return found.weights or path

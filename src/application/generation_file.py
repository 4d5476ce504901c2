"""Read the ``generation_config.json`` beside a model's weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from attrs import fields_dict

from glm3.application.checkpoint_stores import folder_of
from glm3.domain.errors import ConfigError, StorageError
from glm3.domain.generation_defaults import UNSAID, GenerationDefaults

__all__ = ["GENERATION_NAME", "generation_beside"]

GENERATION_NAME = "generation_config.json"

_log = logging.getLogger(__name__)


def generation_beside(weights: Path | None) -> GenerationDefaults:
    """Return what the file beside weights says; without the file nothing is said.

    Raises:
        ConfigError: it is no JSON object, or has values that cannot be used.
        StorageError: it cannot be read.
    """
    if weights is None or not (file := folder_of(weights) / GENERATION_NAME).is_file():
        return UNSAID
    try:
        values = json.loads(file.read_bytes().decode())
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror or error}", path=file) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"is not valid JSON: {error}", path=file) from None
    if not isinstance(values, dict):
        raise ConfigError("must be a JSON object", path=file)
    unused = sorted(values.keys() - fields_dict(GenerationDefaults).keys())
    if unused:
        _log.debug("%s: not used: %s", file, ", ".join(unused))
    return GenerationDefaults.from_mapping(values, file)

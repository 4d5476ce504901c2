"""What makes the folder of a ``.ckpt`` a model folder: its YAML and the tokenizer, beside the weights."""

from __future__ import annotations

from pathlib import Path

from glm3.adapters.yaml.model_folder import model_folder_yaml
from glm3.application.checkpoint_stores import config_beside, folder_of
from glm3.application.model_source import TOKENIZER_NAME
from glm3.domain.errors import MissingFileError, UsageError

__all__ = ["model_folder_files"]


def model_folder_files(source: Path, target: Path, *, overwrite: bool) -> dict[str, bytes]:
    """Return the files, by name, to write beside the checkpoint ``target`` that ``source`` becomes.

    Raises:
        UsageError: one of them exists and may not be overwritten, or the target is no ``.ckpt``.
        MissingFileError: there is no config.json beside the source.
    """
    if target.suffix != ".ckpt":
        raise UsageError(
            "only a .ckpt makes a model folder of this kind",
            path=target,
            hint="a folder written with --to hf is one already",
        )
    config = config_beside(source)
    if config is None:
        raise MissingFileError(
            "the configuration is not known",
            path=folder_of(source),
            expected="a config.json beside the source",
        )
    files = {f"{target.stem}.yaml": model_folder_yaml(config.evolve(checkpoint_name_or_path=None)).encode()}
    tokenizer = folder_of(source) / TOKENIZER_NAME
    if tokenizer.is_file():
        files[TOKENIZER_NAME] = tokenizer.read_bytes()
    for name in files:
        if (target.parent / name).exists() and not overwrite:
            raise UsageError(
                "exists already", path=target.parent / name, hint="write into an empty folder, or overwrite"
            )
    return files

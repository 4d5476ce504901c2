"""A complete model folder with a trained vocabulary and random weights: it answers, but makes no sense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from glm3.adapters.sentencepiece.train import train_tokenizer
from support.cli import REPOSITORY
from support.tokenizers import CORPUS

GOLDEN = REPOSITORY / "tests/golden/tiny/hf"


def make_model_folder(folder: Path, *, seq_length: int = 128) -> Path:
    """Write config.json, weights and tokenizer.model (420 pieces of 512 rows) into ``folder``."""
    folder.mkdir(parents=True)
    for file in GOLDEN.iterdir():
        shutil.copyfile(file, folder / file.name)  # without its mode: the originals may be read-only
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "seq_length": seq_length}))
    train_tokenizer(CORPUS, folder / "tokenizer.model", 420)
    return folder

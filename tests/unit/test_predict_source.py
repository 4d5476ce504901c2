"""Which weights, network and tokenizer the file of a run means."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.hub.catalog import PublishedModels
from glm3.adapters.hub.http_downloader import HttpDownloader
from glm3.adapters.msckpt.store import MindSporeCheckpointStore
from glm3.adapters.strategy.store import FileStrategyStore
from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.application.model_source import ModelSource, ModelSources
from glm3.application.predict_source import predict_source
from glm3.domain.errors import ConfigError, DownloadError
from glm3.domain.tensors import DType, TensorSpec
from support.cli import REPOSITORY

PREDICT = REPOSITORY / "configs/glm3/predict_glm3_6b.yaml"
SHAPE = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "kv_channels": 16, "seq_length": 128}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps({**SHAPE, "rope_ratio": 50}))
    (tmp_path / "model/tokenizer.model").touch()
    return tmp_path / "model"


def checkpoint(path: Path) -> Path:
    """Write a file of one small tensor."""
    spec = TensorSpec("x", DType.FLOAT32, (1,))
    with MindSporeCheckpointStore().create(path, [spec]) as writer:
        writer.write("x", np.zeros(1, np.float32))
    return path


def found(*overrides: str, downloads: Path = Path("nowhere")) -> ModelSource:
    reader = YamlRunConfigReader()
    catalog = PublishedModels(REPOSITORY / "src/resources", downloads)
    sources = ModelSources(catalog, HttpDownloader(offline=True), reader)
    return predict_source(
        reader.read(PREDICT, overrides), sources, [MindSporeCheckpointStore()], FileStrategyStore()
    )


def test_a_folder_brings_its_shape_and_the_file_decides_generation(folder: Path) -> None:
    source = found(f"load_checkpoint={folder}", "model.model_config.top_k=7")
    assert (source.weights, source.tokenizer) == (folder, folder / "tokenizer.model")
    assert {name: getattr(source.config, name) for name in SHAPE} == SHAPE
    assert (source.config.rope_ratio, source.config.top_k, source.config.max_length) == (50, 7, 256)


def test_the_file_may_shorten_the_context_and_not_lengthen_it(folder: Path) -> None:
    for asked, got in ((64, 64), (4096, 128)):
        source = found(f"load_checkpoint={folder}", f"model.model_config.seq_length={asked}")
        assert source.config.seq_length == got


def test_a_single_file_without_a_configuration_has_the_shape_of_the_run(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.ckpt")
    source = found(f"load_checkpoint={path}")
    assert (source.weights, source.tokenizer, source.config.num_layers) == (path, None, 28)


def test_a_single_file_uses_what_lies_beside_it(folder: Path) -> None:
    path = checkpoint(folder / "x.ckpt")
    source = found(f"model.model_config.checkpoint_name_or_path={path}")
    assert (source.config.num_layers, source.tokenizer) == (2, folder / "tokenizer.model")


def test_a_single_file_has_the_shape_of_the_yaml_beside_it(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.ckpt")
    (tmp_path / "x.yaml").write_text(json.dumps({"model": {"model_config": SHAPE}}))
    source = found(f"load_checkpoint={path}", "model.model_config.num_layers=7")
    assert (source.weights, source.config.num_layers, source.config.top_k) == (path, 2, 1)


def test_load_checkpoint_wins_over_the_models_own_name(folder: Path) -> None:
    """The published program ignored it when predicting."""
    assert (
        found(f"load_checkpoint={folder}", "model.model_config.checkpoint_name_or_path=x").weights == folder
    )


def test_the_files_tokenizer_wins_unless_it_is_a_fill_me_in_path(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.model"
    mine.touch()
    given = found(f"load_checkpoint={folder}", f"processor.tokenizer.vocab_file={mine}")
    left = found(f"load_checkpoint={folder}", "processor.tokenizer.vocab_file=/path/to/tokenizer.model")
    assert (given.tokenizer, left.tokenizer) == (mine, folder / "tokenizer.model")


def test_nothing_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.model"):
        found(f"load_checkpoint={tmp_path}", "processor.tokenizer.vocab_file=absent.model")
    with pytest.raises(ConfigError, match="no such checkpoint"):
        found("load_checkpoint=absent")
    with pytest.raises(ConfigError, match="no weights are named"):
        found("model.model_config.checkpoint_name_or_path=None")


def test_a_known_name_is_downloaded_unless_that_is_forbidden(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="offline"):
        found(downloads=tmp_path)

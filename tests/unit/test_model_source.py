"""From a name, a folder or a file to the parts of a model."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from glm3.adapters.hub.catalog import DEFAULT_BASE_URL, PublishedModels
from glm3.adapters.yaml.model_folder import write_model_yaml
from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.application.model_source import ModelSources
from glm3.domain.errors import ConfigError, Glm3Error, MissingFileError, UsageError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.downloader import Progress
from glm3.entrypoints.container import build_container
from glm3.entrypoints.paths import resources_folder

TOKENIZER_SHA256 = "e7dc4c393423b76e4373e5157ddc34803a0189ba96b21ddbb40269d31468a6f2"
SMALL = ModelConfig(num_layers=2, hidden_size=64, ffn_hidden_size=96, seq_length=128)


class FakeDownloader:
    """Make the files instead of fetching them, and remember what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Path, int | None, str | None]] = []

    def fetch(
        self,
        url: str,
        target: Path,
        *,
        size: int | None = None,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        self.asked.append((url, target, size, sha256))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        if progress is not None:
            progress(1, size)
        return target


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.downloader = FakeDownloader()
        self.resources = folder / "resources"
        (self.resources).mkdir()
        (self.resources / "configs").symlink_to(resources_folder() / "configs")
        self.sources = ModelSources(
            PublishedModels(self.resources, folder / "downloads"), self.downloader, YamlRunConfigReader()
        )

    def hugging_face_folder(self, path: Path, config: ModelConfig = SMALL) -> Path:
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(config.to_hugging_face()))
        (path / "model.safetensors").touch()
        (path / "tokenizer.model").touch()
        return path

    def yaml(self, **values: Any) -> Path:
        path = self.folder / "runs" / "my.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values))
        return path


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("name", ["glm3_6b", "mindspore/glm3_6b"])
def test_the_published_model_is_downloaded_into_its_folder(world: World, name: str) -> None:
    told: list[tuple[str, int, int | None]] = []
    source = world.sources.resolve(name, progress=lambda *at: told.append(at))
    folder = world.folder / "downloads" / "glm3"
    assert (source.weights, source.tokenizer) == (folder / "glm3_6b.ckpt", folder / "tokenizer.model")
    assert world.downloader.asked == [
        (f"{DEFAULT_BASE_URL}/tokenizer.model", folder / "tokenizer.model", 1018370, TOKENIZER_SHA256),
        (f"{DEFAULT_BASE_URL}/glm3_6b.ckpt", folder / "glm3_6b.ckpt", None, None),
    ]
    assert told == [("tokenizer.model", 1, 1018370), ("glm3_6b.ckpt", 1, None)]


def test_its_configuration_is_the_packaged_one_with_its_true_context(world: World) -> None:
    """The template's 193 tokens are a training length; a stale copy in the download folder is not read."""
    folder = world.folder / "downloads" / "glm3"
    folder.mkdir(parents=True)
    (folder / "glm3_6b.yaml").write_text("model: {model_config: {num_layers: 3}}")
    config = world.sources.config("glm3_6b")
    assert (config.num_layers, config.seq_length, config.top_k) == (28, 8192, 1)
    assert world.downloader.asked == []


def test_only_what_is_wanted_is_downloaded(world: World) -> None:
    source = world.sources.resolve("glm3_6b", with_weights=False)
    assert [target.name for _, target, _, _ in world.downloader.asked] == ["tokenizer.model"]
    assert source.weights is None


def test_the_embedded_model_lies_in_the_resources(world: World) -> None:
    folder = world.hugging_face_folder(world.resources / "tiny")
    source = world.sources.resolve("tiny")
    assert (source.name, source.weights, source.tokenizer) == ("tiny", folder, folder / "tokenizer.model")
    assert source.config.num_layers == 2
    assert world.downloader.asked == []


def test_a_package_without_its_embedded_model_says_so(world: World) -> None:
    with pytest.raises(MissingFileError) as caught:
        world.sources.resolve("tiny")
    assert caught.value.path == world.resources / "tiny"


def test_a_hugging_face_folder_is_a_model(world: World) -> None:
    folder = world.hugging_face_folder(world.folder / "hf")
    source = world.sources.resolve(folder)
    assert (source.weights, source.tokenizer) == (folder, folder / "tokenizer.model")
    assert source.config.hidden_size == 64


def test_a_folder_with_one_yaml_and_one_ckpt_is_a_model(world: World) -> None:
    folder = world.folder / "ms"
    folder.mkdir()
    write_model_yaml(folder / "any.yaml", SMALL)
    (folder / "any.ckpt").touch()
    source = world.sources.resolve(str(folder))
    assert (source.config, source.weights, source.tokenizer) == (SMALL, folder / "any.ckpt", None)


@pytest.mark.parametrize(
    "names",
    [["a.yaml"], ["a.ckpt"], ["a.yaml", "a.ckpt", "b.ckpt"], ["a.yaml", "b.yaml", "a.ckpt"], ["notes"]],
)
def test_any_other_folder_is_refused_with_what_is_in_it(world: World, names: list[str]) -> None:
    folder = world.folder / "odd"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    with pytest.raises(MissingFileError) as caught:
        world.sources.resolve(folder)
    assert caught.value.found == ", ".join(sorted(names))
    assert "config.json and weights, or exactly one .yaml and one .ckpt" in str(caught.value)


def test_a_folder_of_a_known_name_wins_over_the_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone called glm3_6b in the working directory is what its owner means."""
    world.hugging_face_folder(world.folder / "glm3_6b")
    monkeypatch.chdir(world.folder)
    assert world.sources.resolve("glm3_6b").config.hidden_size == 64
    assert world.downloader.asked == []


def test_an_unknown_name_is_told_the_names_and_what_a_folder_holds(world: World) -> None:
    with pytest.raises(UsageError) as caught:
        world.sources.resolve("chatglm4")
    assert "tiny, glm3_6b" in str(caught.value)
    assert "config.json, weights and tokenizer.model" in str(caught.value.hint)


def test_a_file_that_is_only_written_is_told_what_to_name_instead(world: World) -> None:
    path = world.folder / "m.gguf"
    path.touch()
    with pytest.raises(UsageError, match=r"\nhint: a \.gguf is written and never read: name the folder"):
        world.sources.resolve(path)


def test_weights_alone_are_told_what_to_put_where(world: World) -> None:
    folder = world.folder / "alone"
    folder.mkdir()
    (folder / "m.ckpt").touch()
    with pytest.raises(MissingFileError) as caught:
        world.sources.resolve(folder / "m.ckpt")
    assert f"config.json and tokenizer.model from where the weights come from to {folder};" in str(
        caught.value
    )
    with pytest.raises(
        MissingFileError, match=r"\nhint: a model folder holds .*one \.ckpt and tokenizer\.model"
    ):
        world.sources.resolve(folder)


def test_a_misspelt_name_is_told_the_one_that_was_meant(world: World) -> None:
    with pytest.raises(UsageError) as caught:
        world.sources.resolve("glm3-6b")
    assert caught.value.hint == "did you mean glm3_6b?"


def test_a_folder_that_may_not_be_read_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(Glm3Error, match="cannot be read: Permission denied"):
        world.sources.resolve(world.folder)


def test_paths_in_a_yaml_count_from_it_too(world: World) -> None:
    path = world.yaml(
        model={"model_config": {"num_layers": 2, "checkpoint_name_or_path": "w.ckpt"}},
        processor={"tokenizer": {"vocab_file": "t.model"}},
    )
    (path.parent / "w.ckpt").touch()
    (path.parent / "t.model").touch()
    source = world.sources.resolve(path)
    assert (source.weights, source.tokenizer) == (path.parent / "w.ckpt", path.parent / "t.model")
    assert source.config.num_layers == 2


def test_a_file_of_weights_is_a_model_with_the_yaml_beside_it(world: World) -> None:
    path = world.yaml(
        model={"model_config": {"num_layers": 2}}, processor={"tokenizer": {"vocab_file": "t.model"}}
    )
    weights, vocabulary = path.with_name("w.ckpt"), path.with_name("t.model")
    weights.touch()
    vocabulary.touch()
    source = world.sources.resolve(weights)
    assert (source.weights, source.tokenizer, source.config.num_layers) == (weights, vocabulary, 2)


def test_of_several_yamls_the_one_of_the_weights_name_counts(world: World) -> None:
    path = world.yaml(model={"model_config": {"num_layers": 2}})
    write_model_yaml(path.with_name("w.yaml"), SMALL.evolve(num_layers=3))
    for name in ("w.ckpt", "other.ckpt"):
        path.with_name(name).touch()
    assert world.sources.config(path.with_name("w.ckpt")).num_layers == 3
    with pytest.raises(MissingFileError, match=r"expected config\.json or other\.yaml"):
        world.sources.resolve(path.with_name("other.ckpt"))


def test_config_json_beside_a_file_wins_over_a_yaml(world: World) -> None:
    folder = world.hugging_face_folder(world.folder / "hf")
    (folder / "w.ckpt").touch()
    write_model_yaml(folder / "w.yaml", SMALL.evolve(num_layers=3))
    source = world.sources.resolve(folder / "w.ckpt")
    assert (source.config.num_layers, source.tokenizer) == (2, folder / "tokenizer.model")


def test_a_yaml_s_own_weights_beside_it_do_not_bring_it_back(world: World) -> None:
    """What replaces its keys counts, also where the file is the only one beside the weights."""
    path = world.yaml(load_checkpoint="w.ckpt", model={"model_config": {"num_layers": 2}})
    path.with_name("w.ckpt").touch()
    run = YamlRunConfigReader().read(path, ["model.model_config.num_layers=5"])
    assert world.sources.resolve_run(run).config.num_layers == 5


def test_load_checkpoint_wins_in_a_yaml(world: World) -> None:
    path = world.yaml(
        load_checkpoint="w.ckpt", model={"model_config": {"checkpoint_name_or_path": "glm3_6b"}}
    )
    (path.parent / "w.ckpt").touch()
    assert world.sources.resolve(path).weights == path.parent / "w.ckpt"


def test_a_yaml_that_names_a_model_takes_from_it_what_it_does_not_say(world: World) -> None:
    folder = world.hugging_face_folder(world.resources / "tiny")
    path = world.yaml(model={"model_config": {"seq_length": 99, "checkpoint_name_or_path": "tiny"}})
    source = world.sources.resolve(path)
    assert (source.config.seq_length, source.config.hidden_size) == (99, 64)
    assert (source.weights, source.tokenizer) == (folder, folder / "tokenizer.model")


def test_the_card_s_predict_file_takes_the_published_tokenizer_for_its_placeholder(world: World) -> None:
    source = world.sources.resolve(resources_folder() / "configs" / "predict_glm3_6b.yaml")
    folder = world.folder / "downloads" / "glm3"
    assert (source.weights, source.tokenizer) == (folder / "glm3_6b.ckpt", folder / "tokenizer.model")
    assert (source.config.seq_length, source.config.max_length) == (2048, 256)


def test_the_configuration_of_a_yaml_touches_nothing_else(world: World) -> None:
    path = world.yaml(
        model={"model_config": {"num_layers": 2, "checkpoint_name_or_path": "gone.ckpt"}},
        processor={"tokenizer": {"vocab_file": "gone.model"}},
    )
    assert world.sources.config(path).num_layers == 2
    assert world.sources.config(resources_folder() / "configs" / "predict_glm3_6b.yaml").seq_length == 2048
    assert world.downloader.asked == []


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"load_checkpoint": "gone.ckpt"}, "load_checkpoint"),
        (
            {"model": {"model_config": {"checkpoint_name_or_path": "gone"}}},
            "model.model_config.checkpoint_name_or_path",
        ),
        ({"processor": {"tokenizer": {"vocab_file": "gone.model"}}}, "processor.tokenizer.vocab_file"),
    ],
)
def test_a_file_that_a_yaml_names_must_be_there(world: World, values: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        world.sources.resolve(world.yaml(**values))
    assert (caught.value.field, caught.value.line) == (field, 1)


def test_where_models_come_from_and_go_to_is_set_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GLM3_MODEL_BASE_URL", "https://mirror.invalid/glm3/")
    monkeypatch.setenv("CHECKPOINT_DOWNLOAD_FOLDER", str(tmp_path))
    known = build_container().catalog().find("glm3_6b")
    assert known is not None
    assert known.weights is not None
    assert known.weights.url == "https://mirror.invalid/glm3/glm3_6b.ckpt"
    assert known.folder == tmp_path / "glm3"


def test_offline_in_the_environment_forbids_downloads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setenv("GLM3_OFFLINE", "1")
    monkeypatch.setenv("CHECKPOINT_DOWNLOAD_FOLDER", str(tmp_path))
    with pytest.raises(Glm3Error, match="the network may not be used"):
        build_container().sources().resolve("glm3_6b")


def test_the_packaged_configurations_are_those_of_the_checkout() -> None:
    packaged = resources_folder() / "configs"
    checkout = Path(__file__).parents[2] / "configs" / "glm3"
    assert packaged.resolve() == checkout.resolve()

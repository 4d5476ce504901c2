from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm3.adapters.yaml.model_folder import write_model_yaml
from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.domain.errors import StorageError
from glm3.domain.model_config import ModelConfig
from glm3.domain.tensors import DType

configs = st.builds(
    ModelConfig,
    num_layers=st.integers(1, 99),
    layernorm_epsilon=st.floats(1e-12, 1e-2),
    rope_ratio=st.sampled_from([1.0, 50.0]),
    pre_seq_len=st.none() | st.integers(1, 256),
    eos_token_id=st.sampled_from([(2,), (2, 64795)]),
    param_init_type=st.sampled_from([DType.FLOAT32, DType.BFLOAT16]),
    max_length=st.none() | st.integers(1, 9999),
    extras=st.dictionaries(
        st.text().map("own ".__add__), st.text() | st.lists(st.integers()) | st.booleans(), max_size=2
    ),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs)
def test_a_written_configuration_is_read_back_as_it_was(tmp_path: Path, config: ModelConfig) -> None:
    path = write_model_yaml(tmp_path / "model.yaml", config)
    run = YamlRunConfigReader().read(path)
    assert run.model.model_config == config
    assert run.processor.tokenizer.vocab_file == "tokenizer.model"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.yaml"]


def test_keys_of_a_published_config_json_survive(tmp_path: Path) -> None:
    config = ModelConfig.from_mapping(
        {"model_type": "chatglm", "auto_map": {"AutoModel": "x.Y"}, "transformers_version": "4.30.2"}
    )
    write_model_yaml(tmp_path / "model.yaml", config)
    assert YamlRunConfigReader().read(tmp_path / "model.yaml").model.model_config == config


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError):
        write_model_yaml(tmp_path / "taken" / "model.yaml", ModelConfig())

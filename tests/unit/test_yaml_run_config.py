"""What the reader makes of a file: records, or every fault with its line."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.domain.errors import ConfigError, Glm3Error, MissingFileError, MultipleFaultsError
from glm3.domain.run_config import RunConfig
from glm3.domain.tensors import DType


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


def read(path: Path, text: str, *overrides: str) -> RunConfig:
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return YamlRunConfigReader().read(path, overrides)


def faults_of(path: Path, text: str, *overrides: str) -> list[tuple[int | None, str | None, str]]:
    with pytest.raises(MultipleFaultsError) as caught:
        read(path, text, *overrides)
    assert all(fault.path == path or fault.path is None for fault in caught.value.faults)
    return [(fault.line, fault.field, fault.message) for fault in caught.value.faults]


def broken(path: Path, content: bytes) -> ConfigError:
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        YamlRunConfigReader().read(path)
    assert caught.value.path == path
    assert caught.value.line is not None
    return caught.value


def test_values_are_read_as_the_files_write_them(file: Path) -> None:
    """The text None is null and 1e-5 without a dot a number, though YAML 1.1 reads both as texts."""
    config = read(
        file,
        """
        load_checkpoint: ''
        model:
          model_config: {pre_seq_len: None, layernorm_epsilon: 1e-5, compute_dtype: bfloat16, top_p: 1}
        lr_schedule: {learning_rate: 1.e-4, lr_end: 1e-6}
        callbacks:
          - type: CheckpointMointor
        """,
    )
    network = config.model.model_config
    assert (network.pre_seq_len, network.layernorm_epsilon) == (None, 1e-5)
    assert network.compute_dtype is DType.BFLOAT16
    assert config.load_checkpoint is None
    assert (config.lr_schedule.learning_rate, config.lr_schedule.lr_end) == (1e-4, 1e-6)
    assert config.callbacks[0].type == "CheckpointMonitor"


def test_both_spellings_of_the_checkpoint_callback_are_one(file: Path) -> None:
    one = read(file, "callbacks: [{type: CheckpointMointor}]").callbacks
    assert one == read(file, "callbacks: [{type: CheckpointMonitor}]").callbacks


def test_all_faults_are_told_at_once_with_their_lines(file: Path) -> None:
    found = faults_of(
        file,
        """\
        sead: 1
        run_mode: trane
        optimizer:
          type: Adamm
          betta1: 0.9
          beta2: 1.5
        model:
          model_config:
            num_layer: 3
            hidden_size: many
            kv_channels: 3
        callbacks:
          - type: MFLossMonitor
          - type: CheckpointMonitor
            save_checkpoint_step: 5
        seed: -1
        """,
    )
    assert found == [
        (1, "sead", "unknown key"),
        (2, "run_mode", "invalid value"),
        (4, "optimizer.type", "invalid value"),
        (5, "optimizer.betta1", "unknown key"),
        (6, "optimizer.beta2", "invalid value"),
        (9, "model.model_config.num_layer", "unknown key"),
        (10, "model.model_config.hidden_size", "invalid value"),
        (15, "callbacks.1.save_checkpoint_step", "unknown key"),
        (16, "seed", "invalid value"),
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sead: 1", "did you mean seed?"),
        ("optimizer: {betta1: 1}", "did you mean beta1?"),
        ("model: {model_config: {seq_len: 1}}", "did you mean seq_length?"),
        ("model: {model_config: {pet_config: {lora_rnk: 8}}}", "did you mean lora_rank?"),
        ("runner_wrapper: {qqqq: 1}", "known here: type, scale_sense, use_clip_grad, max_grad_norm"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_right_one(file: Path, text: str, hint: str) -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        read(file, text)
    assert caught.value.faults[0].hint == hint


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("trainer: {type: Trainer}", "CausalLanguageModelingTrainer"),
        ("optimizer: {type: Adam}", "one of FP32StateAdamWeightDecay, FusedAdamWeightDecay, AdamW"),
        ("callbacks: [{type: X}]", "CheckpointMointor"),
        ("lr_schedule: {type: linar}", "one of constant_with_warmup, linear, cosine"),
        ("context: {device_target: GPU}", "one of Ascend, CPU"),
    ],
)
def test_an_unknown_class_comes_with_the_known_ones(file: Path, text: str, known: str) -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        read(file, text)
    assert known in str(caught.value.faults[0].expected)


@pytest.mark.parametrize(
    "text",
    [
        "seed: x",
        "seed: 1.5",
        "use_parallel: 1",
        "use_parallel: maybe",
        "output_dir: 3",
        "optimizer: 3",
        "optimizer: [1]",
        "callbacks: 3",
        "callbacks: [3]",
        "context: {mode: 2}",
        "context: {max_device_memory: much}",
        "runner_config: {sink_size: 0}",
        "runner_config: {epochs: 0}",
        "parallel: {parallel_mode: 4}",
        "train_dataset: {data_loader: {version: 1}}",
        "train_dataset: {data_loader: {origin_columns: content}}",
        "lr_schedule: {learning_rate: .nan}",
        "optimizer: {eps: .inf}",
        "seed: 2020-01-01",
        "model: {model_config: {eos_token_id: [a]}}",
        "model: {model_config: 3}",
        "model: {model_config: {extras: 3}}",
    ],
)
def test_a_value_that_cannot_be_right_is_a_fault_with_what_is_expected(file: Path, text: str) -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        read(file, text)
    (fault,) = caught.value.faults
    assert (fault.path, fault.line) == (file, 1)
    assert fault.expected


def test_a_report_reads_well(file: Path) -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        read(file, "seed: 1\nsead: 2\noptimizer:\n  eps: tiny\n")
    assert str(caught.value) == (
        f"2 faults in {file}\n"
        f"- {file}:2: sead: unknown key\nhint: did you mean seed?\n"
        f"- {file}:4: optimizer.eps: invalid value (expected a number, found 'tiny')"
    )


def test_a_key_given_twice_is_a_fault_that_names_both_lines(file: Path) -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        read(file, "seed: 1\noutput_dir: x\nseed: 2\n")
    (fault,) = caught.value.faults
    assert (fault.line, fault.field, fault.found) == (3, "seed", "first in line 1")


def test_odd_keys_are_faults(file: Path) -> None:
    assert [line for line, _, _ in faults_of(file, "1: a\n? [b]\n: c\nnull: d\n")] == [1, 2, 4]


def test_aliases_stay_one_part_and_merged_mappings_may_be_changed_alone(file: Path) -> None:
    text = """
    train_dataset: &rows
      batch_size: 3
      data_loader: {dataset_dir: a}
    train_dataset_task: {dataset_config: *rows}
    eval_dataset:
      <<: *rows
      repeat: 2
    """
    config = read(file, text, "train_dataset.batch_size=5", "eval_dataset.prefetch_size=7")
    assert config.train_dataset is not None
    assert config.train_dataset_task is not None
    assert config.eval_dataset is not None
    assert config.train_dataset_task.dataset_config == config.train_dataset
    assert config.train_dataset.batch_size == 5
    assert (config.eval_dataset.batch_size, config.eval_dataset.repeat) == (3, 2)
    assert (config.eval_dataset.prefetch_size, config.train_dataset.prefetch_size) == (7, 1)


def test_the_mapping_itself_and_earlier_sources_win_in_a_merge(file: Path) -> None:
    text = """
    context: &a {mode: 1, device_id: 1}
    parallel_config: &b {data_parallel: 2}
    optimizer: {<<: [{beta1: 0.1, beta2: 0.2}, {beta2: 0.3, eps: 0.4}], beta1: 0.5}
    """
    optimizer = read(file, text).optimizer
    assert (optimizer.beta1, optimizer.beta2, optimizer.eps) == (0.5, 0.2, 0.4)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.dictionaries(st.text().map("own ".__add__), plain_values, max_size=4))
def test_free_parts_are_read_as_pyyaml_reads_them(file: Path, values: dict[str, Any]) -> None:
    text = yaml.safe_dump({"model": {"model_config": {"extras": values}}}, allow_unicode=True)
    file.write_text(text, encoding="utf-8")
    expected = yaml.safe_load(text)["model"]["model_config"]["extras"]
    network = YamlRunConfigReader().read(file).model.model_config
    assert network.extras == expected


def test_a_file_builds_on_others_and_wins(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "a.yaml").write_text("seed: 1\noptimizer: {beta1: 0.1, beta2: 0.1}\n")
    (tmp_path / "bases" / "b.yaml").write_text("base_config: a.yaml\noptimizer: {beta2: 0.2}\n")
    (tmp_path / "c.yaml").write_text("callbacks: [{type: MFLossMonitor}, {type: ObsMonitor}]\n")
    config = read(
        tmp_path / "run.yaml",
        """
        base_config: [bases/b.yaml, c.yaml]
        optimizer: {eps: 0.3}
        callbacks: [{type: ObsMonitor}]
        """,
    )
    assert config.seed == 1
    assert (config.optimizer.beta1, config.optimizer.beta2, config.optimizer.eps) == (0.1, 0.2, 0.3)
    assert [callback.type for callback in config.callbacks] == ["ObsMonitor"]


def test_an_alias_in_the_base_sees_what_the_child_says(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "train_dataset: &rows {batch_size: 3}\ntrain_dataset_task: {dataset_config: *rows}\n"
    )
    config = read(tmp_path / "run.yaml", "base_config: base.yaml\ntrain_dataset: {batch_size: 4}\n")
    assert config.train_dataset_task is not None
    assert config.train_dataset_task.dataset_config == config.train_dataset
    assert config.train_dataset is not None
    assert config.train_dataset.batch_size == 4


def test_faults_in_a_base_name_its_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("\nsead: 1\n")
    with pytest.raises(MultipleFaultsError) as caught:
        read(tmp_path / "run.yaml", "base_config: base.yaml\noptimiser: {}\n")
    assert [(f.path, f.line) for f in caught.value.faults] == [
        (tmp_path / "base.yaml", 2),
        (tmp_path / "run.yaml", 2),
    ]


@pytest.mark.parametrize(
    ("base", "message"),
    [("run.yaml", "builds on itself"), ("gone.yaml", "does not exist"), ("[1]", "no file name")],
)
def test_a_broken_chain_of_bases_is_an_error_with_its_line(file: Path, base: str, message: str) -> None:
    error = broken(file, f"seed: 1\nbase_config: {base}\n".encode())
    assert message in error.message
    assert (error.line, error.field) == (2, "base_config")


def test_a_circle_of_bases_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base_config: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base_config: a.yaml\n")
    with pytest.raises(ConfigError, match="builds on itself"):
        YamlRunConfigReader().read(tmp_path / "a.yaml")


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        YamlRunConfigReader().read(tmp_path / "gone.yaml")
    with pytest.raises(Glm3Error, match="cannot be read"):
        YamlRunConfigReader().read(tmp_path)


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"", 1, "empty"),
        (b"# nothing\n", 1, "empty"),
        (b"seed: 1\nmodel: [1,\n", 3, "not valid YAML"),
        (b"seed: 1\nmodel: 'cut off", 2, "not valid YAML"),
        (b"seed: 1\n\tx: 2\n", 2, "not valid YAML"),
        (b"seed: *gone\n", 1, "not valid YAML"),
        (b"seed: 1\n---\nseed: 2\n", 2, "not valid YAML"),
        (b"seed: 1\nx: \xff\xfe\n", 2, "not UTF-8"),
        ("seed: 1\nx: 你好\n".encode("gb18030"), 2, "not UTF-8"),
        (b"seed: 1\nx: \x00\x01\n", 2, "not a text file"),
        (bytes(range(128)), 1, "not a text file"),
        (b"- a\n- b\n", 1, "not a configuration"),
        (b"just words\n", 1, "not a configuration"),
        (b"seed: 1\nx: !!python/object/apply:os.system ['false']\n", 2, "not valid YAML|a tag"),
        (b"seed: 1\nx: !!python/name:os.system ''\n", 2, "not valid YAML"),
        (b"seed: 1\nx: !!set {a, b}\n", 2, "a tag"),
        (b"seed: 1\nx: 2020-13-45\n", 2, "cannot be read"),
        (b"seed: " + b"9" * 5000 + b"\n", 1, "cannot be read"),
        (b"seed: 1\nx: &a [*a]\n", 2, "an alias inside"),
        (b"seed: 1\nx: &a {<<: *a}\n", 2, "merged into itself"),
        (b"seed: 1\nx: {<<: 3}\n", 2, "only mappings"),
        (b"{<<: {? [a] : 1}, seed: &b [*b]}", 1, "an alias inside"),
        (b"[" * 100_000, 1, "nested too deeply"),
        (b"x: " + b"[" * 60 + b"]" * 60, 1, "nested too deeply"),
    ],
)
def test_what_is_no_configuration_is_an_error_with_its_line(
    file: Path, content: bytes, line: int, message: str
) -> None:
    error = broken(file, content)
    assert any(part in error.message for part in message.split("|")), error.message
    assert error.line == line


def test_a_file_of_absurd_size_is_refused(file: Path) -> None:
    file.write_bytes(b"# " + b"x" * (1 << 19))
    with pytest.raises(ConfigError, match="too large"):
        YamlRunConfigReader().read(file)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("merge", [False, True], ids=["aliases", "merges"])
def test_a_few_lines_that_stand_for_billions_are_refused(file: Path, merge: bool) -> None:
    lines = ["x0: &x0 {a0: 1, b0: 1}" if merge else "x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for level in range(1, 40):
        part = f"{{u: *x{level - 1}, v: *x{level - 1}, w: *x{level - 1}}}" if merge else ""
        many = f"[{', '.join([f'*x{level - 1}'] * 9)}]"
        body = f"{{<<: {many}, k{level}: {part}}}" if merge else many
        lines.append(f"x{level}: &x{level} {body}")
    error = broken(file, "\n".join(lines).encode())
    assert "too many values" in error.message


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60)
    | st.text(alphabet="ab:-[]{}&*!<>|'\" \n\t#?,1.e", max_size=60).map(str.encode)
)
def test_garbage_is_read_or_is_a_config_error(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        YamlRunConfigReader().read(file)
    except ConfigError as error:
        faults = error.faults if isinstance(error, MultipleFaultsError) else (error,)
        assert all(fault.path == file for fault in faults)

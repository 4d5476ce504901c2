"""GGUF files: what is in them, read by llama.cpp's own package, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, LlamaFileType, TokenType
from gguf.quants import dequantize
from safetensors.numpy import load_file, save_file

from glm3 import export_gguf
from glm3.domain.errors import (
    ConfigError,
    InvalidInputError,
    MissingFileError,
    ParameterMismatchError,
    UsageError,
)
from glm3.entrypoints.paths import resources_folder
from support.cli import glm3

TINY = resources_folder() / "tiny"


def field(reader: GGUFReader, name: str):
    found = reader.get_field(name)
    assert found is not None, name
    return found.contents()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the embedded model that a test may spoil."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in TINY.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    return copy


def weights(folder: Path) -> dict[str, np.ndarray]:
    return {name: array for file in folder.glob("*.safetensors") for name, array in load_file(file).items()}


def spoil(folder: Path, change) -> None:
    (file,) = folder.glob("*.safetensors")
    arrays = load_file(file)
    change(arrays)
    save_file(arrays, file)


@pytest.mark.parametrize(("encoding", "error"), [("f16", 0.0), ("q8_0", 0.01), ("q4_0", 0.1)])
def test_the_numbers_come_back_as_the_encoding_holds_them(tmp_path, encoding, error):
    export_gguf(TINY, tmp_path / "tiny.gguf", encoding=encoding)
    found = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "tiny.gguf").tensors}
    stored = weights(TINY)
    assert len(found) == sum(not name.endswith("inv_freq") for name in stored)
    for ours, theirs in {
        "transformer.embedding.word_embeddings.weight": "token_embd.weight",
        "transformer.output_layer.weight": "output.weight",
        "transformer.encoder.final_layernorm.weight": "output_norm.weight",
        "transformer.encoder.layers.1.self_attention.query_key_value.weight": "blk.1.attn_qkv.weight",
        "transformer.encoder.layers.1.self_attention.query_key_value.bias": "blk.1.attn_qkv.bias",
        "transformer.encoder.layers.1.mlp.dense_h_to_4h.weight": "blk.1.ffn_up.weight",
        "transformer.encoder.layers.0.post_attention_layernorm.weight": "blk.0.ffn_norm.weight",
    }.items():
        tensor, expected = found[theirs], stored[ours].astype(np.float32)
        read = dequantize(tensor.data, tensor.tensor_type).reshape(expected.shape)
        allowed = error if expected.ndim == 2 else 0.0
        assert np.linalg.norm(read - expected) <= allowed * np.linalg.norm(expected), theirs


def test_network_and_vocabulary_are_in_the_file(tmp_path):
    export_gguf(TINY, tmp_path / "tiny.gguf", encoding="q8_0")
    reader, config = GGUFReader(tmp_path / "tiny.gguf"), json.loads((TINY / "config.json").read_text())
    assert field(reader, "general.architecture") == "chatglm"
    assert field(reader, "general.file_type") == LlamaFileType.MOSTLY_Q8_0
    for name, key in {
        "embedding_length": "hidden_size",
        "block_count": "num_layers",
        "feed_forward_length": "ffn_hidden_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "multi_query_group_num",
        "context_length": "seq_length",
        "vocab_size": "padded_vocab_size",
    }.items():
        assert field(reader, f"chatglm.{name}") == config[key], name
    assert field(reader, "chatglm.rope.dimension_count") == config["kv_channels"] // 2
    tokens = field(reader, "tokenizer.ggml.tokens")
    kinds = field(reader, "tokenizer.ggml.token_type")
    assert len(tokens) == len(kinds) == config["padded_vocab_size"]
    user = field(reader, "tokenizer.ggml.eot_token_id")
    assert (tokens[user], kinds[user]) == ("<|user|>", TokenType.CONTROL)
    assert tokens[:3] == ["<unk>", "<s>", "</s>"]
    assert kinds[tokens.index("<0x41>")] == TokenType.BYTE
    beyond = tokens.index("<|observation|>") + 1
    assert set(kinds[beyond:]) <= {TokenType.UNUSED}


def test_a_row_of_no_whole_blocks_is_not_rounded(tmp_path, folder):
    config = json.loads((folder / "config.json").read_text())
    ffn = config["ffn_hidden_size"] - 8
    (folder / "config.json").write_text(json.dumps({**config, "ffn_hidden_size": ffn}))

    def narrow(arrays):
        for name in arrays:
            if "h_to_4h" in name:
                gate, up = np.split(arrays[name], 2)
                arrays[name] = np.concatenate([gate[:ffn], up[:ffn]])
            elif "4h_to_h" in name:
                arrays[name] = np.ascontiguousarray(arrays[name][:, :ffn])

    spoil(folder, narrow)
    result = export_gguf(folder, tmp_path / "narrow.gguf", encoding="q4_0")
    assert result.encodings["f16"] == config["num_layers"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rmsnorm": False}, "rmsnorm"),
        ({"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm"),
    ],
)
def test_a_network_that_llama_cpp_would_run_as_another_is_refused(tmp_path, folder, settings, named):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    with pytest.raises(ConfigError, match=named):
        export_gguf(folder, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_faulty_weights_leave_nothing_behind(tmp_path, folder):
    name = "transformer.encoder.layers.1.self_attention.dense.weight"

    def put(value):
        def change(arrays):
            arrays[name] = arrays[name].astype(np.float32)
            arrays[name][3, 4] = value

        return change

    for value, words in [(np.nan, "NaN"), (1e6, "do not fit")]:
        spoil(folder, put(value))
        with pytest.raises(InvalidInputError, match=words) as caught:
            export_gguf(folder, tmp_path / "x.gguf")
        assert name in str(caught.value)
    spoil(folder, lambda arrays: arrays.pop(name))
    with pytest.raises(ParameterMismatchError, match=name):
        export_gguf(folder, tmp_path / "x.gguf")
    (folder / "tokenizer.model").unlink()
    with pytest.raises(MissingFileError, match=r"tokenizer\.model"):
        export_gguf(folder, tmp_path / "x.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_prefix_among_the_weights_is_not_left_out_in_silence(tmp_path, folder):
    prefix = {"transformer.prefix_encoder.embedding.weight": np.zeros((4, 8), np.float32)}
    spoil(folder, lambda arrays: arrays.update(prefix))
    with pytest.raises(UsageError, match=r"prefix_encoder\.embedding"):
        export_gguf(folder, tmp_path / "x.gguf")


def test_targets_that_do_not_suit_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no such encoding"):
        export_gguf(TINY, tmp_path / "x.gguf", encoding="q5_k")
    with pytest.raises(UsageError, match="needs a file name"):
        export_gguf(TINY, tmp_path / "x.bin")
    (tmp_path / "x.gguf").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        export_gguf(TINY, tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == b"mine"


def test_the_command_takes_only_what_a_gguf_file_has(tmp_path):
    target = tmp_path / "tiny.gguf"
    done = glm3("convert", str(TINY), str(target), "--to", "gguf", "--encoding", "q4_0")
    assert done.returncode == 0
    assert "1 q8_0" in done.stdout
    refused = glm3("convert", str(TINY), str(tmp_path / "y.gguf"), "--to", "gguf", "--dtype", "float32")
    assert refused.returncode == 2
    assert "--dtype" in refused.stderr
    refused = glm3("convert", str(TINY), str(tmp_path / "y.ckpt"), "--to", "ckpt", "--encoding", "f16")
    assert refused.returncode == 2
    assert "--to gguf" in refused.stderr

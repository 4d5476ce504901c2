"""Rounding a model into a folder: what is written, what is told of it, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from glm3.adapters.memory.numpy_quantizer import NumpyQuantizer
from glm3.application.convert import ConversionRequest, convert
from glm3.application.inspect_checkpoint import inspect_checkpoint
from glm3.application.training_checks import require_weights
from glm3.application.training_start import TrainingStart
from glm3.domain.errors import (
    CheckpointError,
    ConfigError,
    Glm3Error,
    InvalidInputError,
    ParameterMismatchError,
    UsageError,
)
from glm3.domain.parameters import EMBEDDING, OUTPUT_LAYER
from glm3.domain.quantization import QuantScheme, dequantize, quantize_rows
from glm3.domain.quantization.rounded_checkpoint import rounded_checkpoint
from glm3.domain.quantization.stored import PACKED_KEY, PackedHeader
from glm3.entrypoints.container import build_container
from glm3.entrypoints.quantization import quantization_request
from support.rounded_folders import (
    STORE,
    quantize_folder,
    small_config,
    small_parameters,
    write_official_folder,
    write_plain_folder,
    write_small_folder,
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_small_folder(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture
def made(plain, tmp_path):
    quantize_folder(plain, tmp_path / "int4")
    return tmp_path / "int4"


def read_back(folder, bits=0):
    with STORE.open(folder) as reader:
        rounded = rounded_checkpoint(reader, bits)
        return {name: np.array(rounded.read(name)) for name in rounded.tensors}


@pytest.mark.parametrize("scheme", ["int4", "int4-g64-asym", "int4-channel", "int8", "int8-g32"])
def test_a_folder_stands_for_the_rounded_weights(plain, tmp_path, scheme):
    result = quantize_folder(plain, tmp_path / "made", scheme)
    found = read_back(tmp_path / "made")
    wanted = QuantScheme.parse(scheme)
    lost = {}
    for name, array in small_parameters().items():
        expected = dequantize(quantize_rows(array, wanted)) if array.ndim == 2 else array
        np.testing.assert_array_equal(found[name], expected)
        lost[name] = np.linalg.norm(expected - array) / np.linalg.norm(array)
    assert set(found) == set(lost)
    assert result.errors["output_layer"] == pytest.approx(lost[OUTPUT_LAYER], rel=0.2)
    assert result.errors["embedding"] == pytest.approx(lost[EMBEDDING], rel=0.2)
    assert result.nbytes == sum(s.nbytes for s in specs_of(tmp_path / "made").values())
    assert result.source_nbytes == sum(array.nbytes for array in small_parameters().values())


def specs_of(folder):
    with STORE.open(folder) as reader:
        return dict(reader.tensors)


def test_bits_count_what_is_stored(plain, tmp_path):
    assert quantize_folder(plain, tmp_path / "a", "int4").bits_per_weight == pytest.approx(4.5, rel=0.02)
    kept = quantize_folder(plain, tmp_path / "b", "int4", embedding=None, head=QuantScheme(8))
    sizes = {name: array.size for name, array in small_parameters().items() if array.ndim == 2}
    others = sum(sizes.values()) - sizes[EMBEDDING] - sizes[OUTPUT_LAYER]
    rows = small_parameters()[OUTPUT_LAYER].shape[0]
    bits = 32 * sizes[EMBEDDING] + 8 * sizes[OUTPUT_LAYER] + 32 * rows + 4.5 * others
    assert kept.bits_per_weight == pytest.approx(bits / sum(sizes.values()), rel=0.02)


def test_embedding_and_head_may_differ(plain, tmp_path):
    quantize_folder(plain, tmp_path / "made", "int4", embedding=None, head=QuantScheme(8))
    found, parameters = read_back(tmp_path / "made"), small_parameters()
    np.testing.assert_array_equal(found[EMBEDDING], parameters[EMBEDDING])
    expected = dequantize(quantize_rows(parameters[OUTPUT_LAYER], QuantScheme(8)))
    np.testing.assert_array_equal(found[OUTPUT_LAYER], expected)
    with STORE.open(tmp_path / "made") as reader:
        weights = PackedHeader.from_metadata(reader.metadata).weights
    assert OUTPUT_LAYER in weights
    assert EMBEDDING not in weights


def test_config_and_tokenizer_lie_beside(made, plain):
    values = json.loads((made / "config.json").read_text())
    assert values["hidden_size"] == small_config().hidden_size
    assert (
        sorted(path.suffix for path in made.iterdir() if path.name.startswith("model"))[-1] == ".safetensors"
    )
    assert not (made / "tokenizer.model").exists()
    (plain / "tokenizer.model").write_bytes(b"pieces")
    quantize_folder(plain, made, overwrite=True)
    (plain / "tokenizer.model").unlink()
    assert (made / "tokenizer.model").read_bytes() == b"pieces"


def test_what_is_rounded_is_not_rounded_again(made, tmp_path):
    with pytest.raises(ConfigError, match=r"rounded again.*int4-g32"):
        quantize_folder(made, tmp_path / "twice")
    write_official_folder(tmp_path / "official", 8)
    with pytest.raises(ConfigError, match="rounded again"):
        quantize_folder(tmp_path / "official", tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_a_group_that_does_not_divide_is_refused(tmp_path):
    source = write_small_folder(tmp_path / "plain")
    with pytest.raises(ConfigError, match=f"{EMBEDDING} has 64 inputs.*and 5 more"):
        quantize_folder(source, tmp_path / "made", "int4-g128")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_leaves_nothing(tmp_path, bad):
    parameters = {name: np.array(array) for name, array in small_parameters().items()}
    name = "transformer.encoder.layers.1.mlp.dense_4h_to_h.weight"
    parameters[name][5, 3] = bad
    source = write_plain_folder(tmp_path / "plain", parameters, small_config())
    with pytest.raises(InvalidInputError, match=f"{name}, output channel 5"):
        quantize_folder(source, tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_a_writer_that_fails_leaves_what_was_there(made, plain):
    before = {path.name: path.read_bytes() for path in made.iterdir()}

    class Failing(NumpyQuantizer):
        def quantize(self, array, dtype, scheme, name):
            if name == OUTPUT_LAYER:
                raise KeyboardInterrupt
            return super().quantize(array, dtype, scheme, name)

    with pytest.raises(KeyboardInterrupt):
        quantize_folder(plain, made, "int8", Failing(), overwrite=True)
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_large_matrices_are_rounded_in_parts(plain, tmp_path, monkeypatch):
    quantize_folder(plain, tmp_path / "whole")
    monkeypatch.setattr("glm3.application.quantize_model._SLAB_BYTES", 10_000)
    quantize_folder(plain, tmp_path / "parts")
    whole, parts = read_back(tmp_path / "whole"), read_back(tmp_path / "parts")
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array)


def test_a_target_that_exists_is_refused(made, plain):
    with pytest.raises(UsageError, match="exists already"):
        quantize_folder(plain, made)


def test_weights_of_another_network_are_refused(tmp_path):
    parameters = small_parameters()
    del parameters[OUTPUT_LAYER]
    source = write_plain_folder(tmp_path / "plain", parameters, small_config())
    with pytest.raises(ParameterMismatchError, match="output_layer"):
        quantize_folder(source, tmp_path / "made")


def test_an_adapter_among_the_weights_is_refused(tmp_path):
    parameters = small_parameters()
    parameters["transformer.prefix_encoder.embedding.weight"] = np.zeros((2, 8), np.float32)
    source = write_plain_folder(tmp_path / "plain", parameters, small_config())
    with pytest.raises(UsageError, match="prefix_encoder"):
        quantize_folder(source, tmp_path / "made")


@pytest.mark.parametrize(
    "options", [{"quant": "int5"}, {"quant": "int4", "group_size": 48}, {"quant": "int4", "head": "q6_K"}]
)
def test_unknown_schemes_are_refused(tmp_path, options):
    with pytest.raises(ConfigError):
        quantization_request(build_container(), "tiny", tmp_path, **options)


def test_options_make_a_scheme(tmp_path):
    request = quantization_request(
        build_container(), "tiny", tmp_path, quant="int4", group_size=64, embedding="keep"
    )
    assert request.scheme == QuantScheme(4, 64)
    assert request.scheme_of(EMBEDDING) is None
    assert request.scheme_of(OUTPUT_LAYER) == QuantScheme(4, 64)


def test_what_needs_plain_weights_says_so(made, tmp_path):
    request = ConversionRequest(source=made, target=tmp_path / "a.safetensors", format="safetensors")
    with pytest.raises(ConfigError, match=r"cannot be converted.*int4-g32"):
        convert(request, [STORE])
    start = TrainingStart(base=None, config=small_config(), weights=made, tokenizer=None)
    with pytest.raises(ConfigError, match=r"cannot be trained.*int4-g32"):
        require_weights(start, [STORE], adapted=False)
    require_weights(start, [STORE], adapted=True)


def test_an_inspection_shows_the_network(made):
    report = inspect_checkpoint(made, [STORE])
    assert not report.parameter_differences
    assert not report.field_differences
    assert report.metadata[PACKED_KEY] == "int4-g32"
    assert report.implied.config.hidden_size == 64


def changed(folder, change):
    """Rewrite the metadata of a one-file folder."""
    with STORE.open(folder) as reader:
        arrays = {name: np.array(reader.read(name)) for name in reader.tensors}
        specs, metadata = list(reader.tensors.values()), dict(reader.metadata)
    values = json.loads(metadata[PACKED_KEY])
    change(values)
    metadata[PACKED_KEY] = json.dumps(values)
    target = folder.parent / "changed"
    with STORE.create(target, specs, metadata) as writer:
        for name, array in arrays.items():
            writer.write(name, array)
    return target


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda values: values.update(layout=2), "layout.*expected 1, found 2"),
        (lambda values: values.update(scheme="int3"), "no such quantisation"),
        (lambda values: values.pop("weights"), "weights"),
        (lambda values: values.update(weights=[1]), "weights"),
        (lambda values: values["weights"].update({EMBEDDING: ["int8-channel", 200, 64]}), "levels"),
        (lambda values: values["weights"].update({EMBEDDING: ["int4-g32", 0, 64]}), "positive"),
        (lambda values: values["weights"].update({EMBEDDING: ["int4-g32", True, 64]}), "positive"),
        (lambda values: values["weights"].update({"more": ["int4-g32", 16, 64]}), "found nothing"),
    ],
)
def test_damaged_metadata_is_told(made, change, told):
    with STORE.open(changed(made, change)) as reader, pytest.raises(CheckpointError, match=told):
        rounded_checkpoint(reader)


def test_a_cut_file_is_told(made):
    victim = max(made.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut"), STORE.open(made):
        pass


@pytest.mark.parametrize("bits", [4, 8])
def test_rounded_weights_of_chatglm_keep_their_values(tmp_path, bits):
    meant = write_official_folder(tmp_path / "official", bits)
    found = read_back(tmp_path / "official", bits)
    assert set(found) == set(meant)
    for name, array in meant.items():
        np.testing.assert_array_equal(found[name].astype(np.float32), array)


def test_rounded_weights_of_chatglm_need_their_bits(tmp_path):
    write_official_folder(tmp_path / "official", 4)
    with (
        STORE.open(tmp_path / "official") as reader,
        pytest.raises(CheckpointError, match="quantization_bit"),
    ):
        rounded_checkpoint(reader)


@pytest.mark.parametrize("fault", ["dtype", "shape", "weight", "level", "scale"])
def test_damaged_weights_of_chatglm_are_told(tmp_path, fault):
    write_official_folder(tmp_path / "official", 8)
    with STORE.open(tmp_path / "official") as reader:
        arrays = {name: np.array(reader.read(name)) for name in reader.tensors}
    name = "transformer.encoder.layers.0.self_attention.dense.weight"
    if fault == "dtype":
        arrays[name] = arrays[name].astype(np.int16)
    elif fault == "shape":
        arrays[name + "_scale"] = arrays[name + "_scale"][:-1]
    elif fault == "weight":
        del arrays[name]
    elif fault == "level":
        arrays[name][0, 0] = -128
    else:
        arrays[name + "_scale"][3] = np.nan
    damaged = write_plain_folder(tmp_path / "damaged", arrays, small_config())
    with pytest.raises(Glm3Error, match=r"layers\.0\.self_attention\.dense"):
        read_back(damaged, 8)

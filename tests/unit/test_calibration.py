"""Rounding with a text: the errors of what is computed from it become smaller."""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.memory.numpy_calibrator import NumpyCalibrator
from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.memory.numpy_quantizer import NumpyQuantizer
from glm3.application.calibration import CalibratedWeights, calibration_ids
from glm3.application.quantization_request import Calibration
from glm3.domain.errors import Glm3Error, InvalidInputError, MissingFileError, UsageError
from glm3.domain.parameters import EMBEDDING, OUTPUT_LAYER
from glm3.domain.quantization import QuantScheme, dequantize, quantize_rows
from glm3.domain.quantization.compensated import feedback_factor, round_compensated
from glm3.domain.quantization.rounded_checkpoint import rounded_checkpoint
from glm3.domain.quantization.stored import MatrixForm
from glm3.domain.tensors import DType, TensorSpec
from support.models import ArrayReader
from support.rounded_folders import STORE, quantize_folder, small_config, small_parameters, write_small_folder


def correlated(seed, tokens, width):
    """Draw inputs that lie near a quarter of the dimensions, as those of networks do."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((width // 4, width))
    noise = 0.1 * generator.standard_normal((tokens, width))
    return (generator.standard_normal((tokens, width // 4)) @ mixing + noise).astype(np.float32)


@pytest.mark.parametrize("scheme", ["int4", "int4-g64", "int4-g32-asym", "int4-channel"])
def test_outputs_are_nearer(scheme):
    chosen = QuantScheme.parse(scheme)
    weight = np.random.default_rng(0).standard_normal((48, 320)).astype(np.float32)
    seen, unseen = correlated(1, 900, 320), correlated(1, 1400, 320)[900:]
    moved = dequantize(round_compensated(weight, feedback_factor(seen.T @ seen), chosen))
    plain = dequantize(quantize_rows(weight, chosen))
    lost = [np.linalg.norm(unseen @ (rounded - weight).T) for rounded in (moved, plain)]
    assert lost[0] < 0.6 * lost[1]


@pytest.mark.parametrize("scheme", ["int4", "int4-g64-asym", "int8", "int8-g32"])
def test_inputs_that_have_nothing_in_common_change_nothing(scheme):
    chosen = QuantScheme.parse(scheme)
    weight = np.random.default_rng(2).standard_normal((20, 200)).astype(np.float32)
    weight[:, 192:] = 0
    factor = feedback_factor(np.eye(200, dtype=np.float32) * 5)
    moved, plain = (
        dequantize(w) for w in (round_compensated(weight, factor, chosen), quantize_rows(weight, chosen))
    )
    assert np.mean(moved == plain) > 0.99  # ties may fall either way


@pytest.mark.parametrize("panel", [7, 16, 512])
def test_the_factor_is_that_of_the_inverse(monkeypatch, panel):
    monkeypatch.setattr("glm3.domain.quantization.compensated._PANEL", panel)
    monkeypatch.setattr("glm3.domain.quantization.compensated._BLOCK", panel)
    seen = correlated(3, 400, 48).astype(np.float64)
    moments = seen.T @ seen
    factor = feedback_factor(moments)
    damped = moments + 0.01 * np.mean(np.diag(moments)) * np.eye(48)
    assert not np.tril(factor, -1).any() or np.abs(np.tril(factor, -1)).max() < 1e-12
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(48), atol=1e-8)


def test_inputs_that_are_always_zero_are_no_trouble():
    weight = np.ones((16, 64), np.float32)
    found = round_compensated(weight, feedback_factor(np.zeros((64, 64), np.float32)), QuantScheme(4, 32))
    np.testing.assert_allclose(dequantize(found), weight, rtol=1e-3)


def test_what_is_not_finite_is_told():
    with pytest.raises(InvalidInputError, match="inputs"):
        feedback_factor(np.full((4, 4), np.nan, np.float32))
    weight = np.ones((20, 64), np.float32)
    weight[17, 40] = np.inf
    with pytest.raises(InvalidInputError, match="channel 17"), np.errstate(all="ignore"):
        round_compensated(weight, feedback_factor(np.eye(64, dtype=np.float32)), QuantScheme(4, 32))


def rounded_with(sequences, parameters, scheme):
    config = small_config()
    stored = {name: TensorSpec(name, DType.FLOAT32, array.shape) for name, array in parameters.items()}
    forms = {name: MatrixForm(scheme, array.shape) for name, array in parameters.items() if array.ndim == 2}
    weights = CalibratedWeights(
        config, ArrayReader(parameters), stored, forms, NumpyCalibrator(), NumpyQuantizer(), sequences
    )
    rounded = dict(parameters)
    for name in parameters:
        if name in forms:
            taken = weights.take(name)
            rounded[name] = dequantize(quantize_rows(parameters[name], scheme) if taken is None else taken)
            assert (taken is None) == (name == EMBEDDING)
    return rounded


def test_a_model_scores_other_text_of_the_kind_better():
    """Sequences of few different ids; what is measured was not calibrated with."""
    parameters, scheme, generator = small_parameters(), QuantScheme(4, 64), np.random.default_rng(4)
    kind = generator.choice(small_config().padded_vocab_size, 24, replace=False)
    sequences = [kind[generator.integers(0, 24, 32)].tolist() for _ in range(40)]
    calibrated = rounded_with(sequences[:32], parameters, scheme)
    plain = {n: dequantize(quantize_rows(a, scheme)) if a.ndim == 2 else a for n, a in parameters.items()}
    model, unseen = NumpyModel(small_config(), parameters), np.array(sequences[32:])
    expected = model.forward(unseen)
    lost = [
        np.linalg.norm(NumpyModel(small_config(), p).forward(unseen) - expected) for p in (calibrated, plain)
    ]
    assert lost[0] < 0.9 * lost[1]
    assert OUTPUT_LAYER in calibrated


class Words:
    """A tokenizer of one id a character."""

    class special_tokens:  # noqa: N801 - stands for an attribute
        prefix = (1, 2)

    def encode(self, text: str) -> list[int]:
        return [3 + ord(letter) % 90 for letter in text]


def test_a_text_becomes_sequences(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("ab\n" * 40, encoding="utf-8")
    sequences = calibration_ids(path, Words(), small_config())
    assert all(ids[:2] == [1, 2] for ids in sequences)
    assert {len(ids) for ids in sequences[:-1]} == {small_config().seq_length}
    assert [token for ids in sequences for token in ids[2:]] == Words().encode("ab\n" * 40)


def test_a_folder_is_written_by_a_text(tmp_path):
    """Unlike one without, and every matrix of it is in its place."""
    source = write_small_folder(tmp_path / "model")
    (source / "tokenizer.model").write_bytes(b"pieces")
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox\n" * 12, encoding="utf-8")
    calibration = Calibration(tmp_path / "text.txt", NumpyCalibrator(), lambda path: Words())
    quantize_folder(source, tmp_path / "by_text", calibration=calibration)
    quantize_folder(source, tmp_path / "without")
    found = []
    for name in ("by_text", "without"):
        with STORE.open(tmp_path / name) as reader:
            rounded = rounded_checkpoint(reader)
            found.append({name: np.array(rounded.read(name)) for name in rounded.tensors})
    for name, array in small_parameters().items():
        by_text, without = found[0][name], found[1][name]
        assert np.linalg.norm(by_text - array) < 0.3 * np.linalg.norm(array) + 1e-6
        assert np.array_equal(by_text, without) == (array.ndim == 1 or name == EMBEDDING)


def test_a_text_needs_a_tokenizer(tmp_path):
    source = write_small_folder(tmp_path / "model")
    calibration = Calibration(tmp_path / "text.txt", NumpyCalibrator(), lambda path: Words())
    with pytest.raises(MissingFileError, match=r"tokenizer\.model"):
        quantize_folder(source, tmp_path / "made", calibration=calibration)


@pytest.mark.parametrize(
    ("content", "kind"), [(None, MissingFileError), (b"\xff\xfe\x00", UsageError), (b"short", UsageError)]
)
def test_what_is_no_text_is_told(tmp_path, content, kind):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kind) as caught:
        calibration_ids(path, Words(), small_config())
    assert isinstance(caught.value, Glm3Error)
    assert caught.value.path == path

"""What only the MindSpore trainer does: scaling and skipping, precisions, recomputation, optimizers."""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.domain.errors import ContextLengthError, InvalidInputError
from glm3.domain.ports.training import MicroBatch
from glm3.domain.tensors import DType, from_float32, to_float32
from glm3.domain.training.options import OptimizerKind, TrainOptions, decays
from support.models import KERNEL_SETS, mindspore_model, tiny_config
from support.trainers import assert_bits_equal, kept

RATE = 1e-2
CONFIG = tiny_config(num_layers=1)
BIAS = "transformer.encoder.layers.0.self_attention.query_key_value.bias"


@pytest.fixture(scope="module")
def parameters():
    return NumpyModel.random(CONFIG, seed=1, scale=0.3).parameters()


@pytest.fixture(params=KERNEL_SETS)
def kernels(request):
    return request.param


def batch_of(seed=0):
    ids = np.random.default_rng(seed).integers(0, 48, (2, 13)).astype(np.int32)
    return MicroBatch(ids[:, :-1], ids[:, 1:])


def trainer_of(parameters, kernels="cpu", dtype=DType.FLOAT32, **options):
    stored = {name: from_float32(array, dtype) for name, array in parameters.items()}
    model = mindspore_model(CONFIG, stored, kernels=kernels, dtype=dtype, dtypes=dict.fromkeys(stored, dtype))
    return model.trainer(TrainOptions(**options), SingleProcessCommunicator())


@pytest.mark.parametrize("parts", [1, 2])
def test_an_overflow_skips_the_step_and_halves_the_scale(parameters, kernels, parts):
    """Scaled by 2^127 the gradients do not fit float32; by a half of it less and less, until they do."""
    trainer = trainer_of(parameters, kernels, loss_scale=2.0**127)
    before = kept(trainer.parameters()), kept(trainer.state())
    report = trainer.step([batch_of()] * parts, RATE)
    assert report.overflow
    assert report.loss_scale == 2.0**127
    assert np.isfinite(report.loss)
    assert_bits_equal(kept(trainer.parameters()), before[0])
    after = kept(trainer.state())
    assert after.pop("loss_scale") == 2.0**126
    before[1].pop("loss_scale")
    assert_bits_equal(after, before[1])


def test_once_the_scale_fits_the_step_is_the_unscaled_one(parameters, kernels):
    """A power of two changes no bit of the gradients; skipped steps do not count for the bias correction."""
    scaled, plain = trainer_of(parameters, kernels, loss_scale=2.0**127), trainer_of(parameters, kernels)
    for _ in range(127):
        if not scaled.step([batch_of()], RATE).overflow:
            break
    plain.step([batch_of()], RATE)
    assert 1 < scaled.state()["loss_scale"] < 2.0**127
    assert scaled.state()["step"] == 1
    for name, array in kept(plain.parameters()).items():
        np.testing.assert_allclose(scaled.parameters()[name], array, rtol=0, atol=1e-6, err_msg=name)


def test_weights_that_are_not_finite_overflow_without_a_scale(parameters):
    trainer = trainer_of({**parameters, BIAS: np.full_like(parameters[BIAS], np.nan)})
    report = trainer.step([batch_of()], RATE)
    assert report.overflow
    assert np.isnan(report.loss)
    assert trainer.state()["step"] == 0


@pytest.mark.parametrize("corrected", [True, False])
def test_updates_follow_the_formulas(parameters, kernels, corrected):
    """Three steps in float64, with the gradients that the first moments imply; not everything decays."""
    kind = OptimizerKind.ADAMW if corrected else OptimizerKind.FP32_STATE_ADAM_WEIGHT_DECAY
    rule = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-3, "weight_decay": 0.5}
    trainer = trainer_of(parameters, kernels, optimizer=kind, max_grad_norm=0.5, **rule)
    names = list(trainer.parameters())
    expected = {name: array.astype(np.float64) for name, array in kept(trainer.parameters()).items()}
    mean = dict.fromkeys(names, 0.0)
    square = dict.fromkeys(names, 0.0)
    for step in (1, 2, 3):
        report = trainer.step([batch_of(step)], RATE)
        state = kept(trainer.state())
        norm = 0.0
        for name in names:
            moment = state[f"adam_m.{name}"].astype(np.float64)
            gradient = (moment - 0.9 * mean[name]) / (1 - 0.9)
            norm += (gradient**2).sum()
            mean[name] = moment
            square[name] = 0.999 * square[name] + (1 - 0.999) * gradient**2
            np.testing.assert_allclose(state[f"adam_v.{name}"], square[name], rtol=1e-3, atol=1e-9)
            first, second = (1 - 0.9**step, 1 - 0.999**step) if corrected else (1, 1)
            change = mean[name] / first / (np.sqrt(square[name] / second) + 1e-3)
            decay = 0.5 if decays(name, expected[name].shape) else 0.0
            expected[name] = expected[name] - RATE * (change + decay * expected[name])
            np.testing.assert_allclose(
                trainer.parameters()[name], expected[name], rtol=0, atol=2e-5, err_msg=name
            )
        assert norm**0.5 == pytest.approx(min(report.grad_norm, 0.5), rel=1e-3)


def test_only_matrices_decay(parameters):
    shapes = {name: array.shape for name, array in parameters.items()}
    spared = {name.rpartition(".")[0].rpartition(".")[2] for name in shapes if not decays(name, shapes[name])}
    assert spared == {
        "input_layernorm",
        "post_attention_layernorm",
        "final_layernorm",
        "query_key_value",
    }
    assert all(len(shapes[name]) == 2 for name in shapes if decays(name, shapes[name]))


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.BFLOAT16])
@pytest.mark.parametrize("master_weights", [True, False])
def test_narrow_parameters_learn(parameters, kernels, dtype, master_weights):
    """Moments are float32; a master copy keeps what rounding takes, and rounds to the parameter."""
    trainer = trainer_of(parameters, kernels, dtype, master_weights=master_weights, loss_scale=1024.0)
    start = kept(trainer.parameters())
    losses = [trainer.step([batch_of()], 1e-3).loss for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    state, now = kept(trainer.state()), kept(trainer.parameters())
    for name, array in now.items():
        assert array.dtype == dtype.carrier
        assert state[f"adam_m.{name}"].dtype == np.float32
        if master_weights:
            master = state[f"master.{name}"]
            np.testing.assert_array_equal(from_float32(master, dtype), array)
    changed = [name for name in now if not np.array_equal(now[name], start[name])]
    assert len(changed) == len(now)
    assert any(name.startswith("master.") for name in state) is master_weights


def test_a_master_copy_learns_what_rounding_would_undo(parameters):
    """Bfloat16 has 8 bits: an update of a thousandth of a weight of 1 is lost unless a copy keeps it."""
    norm = "transformer.encoder.final_layernorm.weight"
    ones = {**parameters, norm: np.ones_like(parameters[norm])}
    moved = []
    for master_weights in (True, False):
        trainer = trainer_of(ones, "cpu", DType.BFLOAT16, master_weights=master_weights)
        for _ in range(8):
            trainer.step([batch_of()], 1e-3)
        moved.append(np.abs(to_float32(trainer.parameters()[norm], DType.BFLOAT16) - 1).max())
    assert moved[0] > 0
    assert moved[1] == 0


@pytest.mark.parametrize("master_weights", [True, False])
def test_narrow_parameters_resume_bit_for_bit(parameters, master_weights):
    options = {"dtype": DType.BFLOAT16, "master_weights": master_weights}
    straight = trainer_of(parameters, **options)
    expected = [straight.step([batch_of(seed)], RATE) for seed in range(4)]
    first = trainer_of(parameters, **options)
    reports = [first.step([batch_of(seed)], RATE) for seed in range(2)]
    second = trainer_of(parameters, **options)
    second.restore(kept(first.parameters()), kept(first.state()))
    reports += [second.step([batch_of(seed)], RATE) for seed in range(2, 4)]
    assert reports == expected
    assert_bits_equal(kept(second.parameters()), kept(straight.parameters()))
    assert_bits_equal(kept(second.state()), kept(straight.state()))


def test_parameters_of_another_precision_are_not_restored(parameters):
    narrow, wide = trainer_of(parameters, dtype=DType.FLOAT16), trainer_of(parameters)
    with pytest.raises(InvalidInputError, match="float32"):
        wide.restore(kept(narrow.parameters()), kept(wide.state()))


def test_recomputed_activations_change_no_bit(parameters, kernels):
    """Neither of what is learned nor of the answers that the model then gives."""
    trained = []
    for recompute in (True, False):
        model = mindspore_model(CONFIG, parameters, kernels=kernels)
        trainer = model.trainer(TrainOptions(recompute=recompute), SingleProcessCommunicator())
        reports = [trainer.step([batch_of(seed)], RATE) for seed in range(2)]
        answers = model.forward(batch_of().input_ids.astype(np.int64))
        trained.append((reports, {**trainer.parameters(), "answers": answers}))
    assert trained[0][0] == trained[1][0]
    assert_bits_equal(trained[0][1], trained[1][1])


def test_the_arrays_a_model_was_loaded_from_are_not_written(parameters):
    """Loading shares memory with the checkpoint's arrays; training must not reach them."""
    copies = kept(parameters)
    model = mindspore_model(CONFIG, parameters, kernels="cpu")
    trainer = model.trainer(TrainOptions(), SingleProcessCommunicator())
    trainer.step([batch_of()], RATE)
    assert_bits_equal(parameters, copies)
    assert not np.array_equal(trainer.parameters()[BIAS], copies[BIAS])


def test_a_batch_that_does_not_fit_is_refused(parameters):
    trainer = trainer_of(parameters)
    batch = batch_of()
    for spoilt in (
        MicroBatch(batch.input_ids, batch.targets[:, :-1]),
        MicroBatch(batch.input_ids + 48, batch.targets),
        MicroBatch(batch.input_ids, batch.targets + 48),
    ):
        with pytest.raises(InvalidInputError):
            trainer.step([spoilt], RATE)
    long = np.zeros((1, CONFIG.seq_length + 1), np.int32)
    with pytest.raises(ContextLengthError):
        trainer.step([MicroBatch(long, long)], RATE)

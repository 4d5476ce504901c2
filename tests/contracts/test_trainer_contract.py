"""What every trainer must hold to, over every kernel set."""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.memory.numpy_trainer import NumpyTrainer
from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.adapters.mindspore.training.trainer import MindSporeTrainer
from glm3.domain.errors import InvalidInputError, ParameterMismatchError
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.ports.training import MicroBatch, SupportsTraining
from glm3.domain.training.options import TrainOptions
from support.models import mindspore_model, tiny_config
from support.worlds import Threads

ADAPTERS = [NumpyTrainer, MindSporeTrainer]
RATE = 1e-2
CONFIG = tiny_config(
    num_layers=1
)  # each new trainer compiles its graphs, in seconds that grow with the layers


def model_of(adapter, parameters):
    if adapter == "numpy":
        return NumpyModel(CONFIG, {name: array.copy() for name, array in parameters.items()})
    return mindspore_model(CONFIG, parameters, kernels=adapter)


@pytest.fixture(scope="module")
def parameters():
    return NumpyModel.random(CONFIG, seed=1, scale=0.3).parameters()


@pytest.fixture(scope="module", params=["numpy", "stock", "cpu"])
def build(request, parameters):
    """Build a model with the same weights each time."""
    return lambda: model_of(request.param, parameters)


def begin(model, options=None, communicator=None):
    assert isinstance(model, SupportsTraining)
    return model.trainer(options or TrainOptions(), communicator or SingleProcessCommunicator())


def batch_of(rows=2, seq=12, supervised=None, seed=0):
    """Random ids; the targets of row ``i`` from ``supervised[i]`` on are ignored."""
    ids = np.random.default_rng(seed).integers(0, 48, (rows, seq + 1)).astype(np.int32)
    targets = ids[:, 1:].copy()
    for row, count in enumerate(supervised or []):
        targets[row, count:] = -100
    return MicroBatch(ids[:, :-1], targets)


def kept(arrays):
    """Copy what a trainer holds, which changes with the next step."""
    return {name: np.array(array) for name, array in arrays.items()}


def assert_bits_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
        assert actual[name].dtype == array.dtype, name


class Mirror(SingleProcessCommunicator):
    """A world of two in which the other rank does what this one does."""

    @property
    def world_size(self):
        return 2

    def all_reduce(self, array, op="sum"):
        return np.asarray(array) * np.asarray(2, array.dtype)

    def all_gather(self, array):
        return [np.array(array), np.array(array)]


def test_the_loss_of_a_repeated_batch_falls_and_the_report_says_what_was_done(build):
    trainer, batch = begin(build()), batch_of(supervised=[5, 12])
    reports = [trainer.step([batch], RATE) for _ in range(5)]
    losses = [report.loss for report in reports]
    assert losses == sorted(losses, reverse=True)
    for report in reports:
        assert (report.learning_rate, report.supervised_tokens) == (RATE, 17)
        assert not report.overflow
        assert report.grad_norm > 0
        assert report.loss_scale == 1.0


def test_what_is_learned_shows_in_the_models_answers(build):
    """And the first loss is the one that the answers before it imply."""
    model, batch = build(), batch_of(supervised=[5, 12])
    ids = batch.input_ids.astype(np.int64)

    def loss():
        logits = model.forward(ids).astype(np.float64)
        log_sum = np.log(np.exp(logits).sum(-1))
        at = np.take_along_axis(logits, np.maximum(batch.targets, 0)[..., None], -1)[..., 0]
        return (log_sum - at)[batch.targets != -100].mean()

    trainer = begin(model)
    for _ in range(3):
        before = loss()
        assert trainer.step([batch], RATE).loss == pytest.approx(before, rel=1e-5)
        assert loss() < before


def test_unequal_micro_batches_equal_the_batch_they_are_parts_of(build):
    """The mean is over all supervised tokens, not over micro-batches; one part has none at all."""
    whole = batch_of(rows=3, supervised=[3, 12, 0])
    parts = [MicroBatch(whole.input_ids[i : i + 1], whole.targets[i : i + 1]) for i in range(3)]
    joined, split = begin(build()), begin(build())
    for _ in range(2):
        expected, report = joined.step([whole], RATE), split.step(parts, RATE)
        assert report.loss == pytest.approx(expected.loss, rel=1e-5)
        assert report.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
        assert report.supervised_tokens == expected.supervised_tokens == 15
    state, expected_state = split.state(), joined.state()
    for name in joined.parameters():
        moment = expected_state[f"adam_m.{name}"]
        tolerance = 1e-5 * max(np.abs(moment).max(), 1e-9)
        np.testing.assert_allclose(state[f"adam_m.{name}"], moment, rtol=0, atol=tolerance, err_msg=name)


def test_ranks_that_do_the_same_change_nothing_but_the_count(build):
    """Losses, gradients and tokens are combined over ranks; the mean of equal shares is the share."""
    batch = batch_of(supervised=[3, 12])
    alone, together = begin(build()), begin(build(), communicator=Mirror())
    for _ in range(2):
        expected, report = alone.step([batch], RATE), together.step([batch], RATE)
        assert report.loss == pytest.approx(expected.loss, rel=1e-5)
        assert report.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
        assert report.supervised_tokens == 2 * expected.supervised_tokens


def test_batches_of_other_shapes_may_follow(build):
    trainer = begin(build())
    losses = [trainer.step([batch_of(rows, seq)], RATE).loss for rows, seq in ((2, 12), (1, 7), (2, 12))]
    assert losses[2] < losses[0]
    assert np.isfinite(losses).all()


def test_nothing_to_learn_is_refused(build):
    trainer = begin(build())
    before = kept(trainer.parameters())
    with pytest.raises(InvalidInputError, match="nothing to learn"):
        trainer.step([batch_of(supervised=[0, 0])] * 2, RATE)
    assert_bits_equal(kept(trainer.parameters()), before)
    assert trainer.state()["step"] == 0


def test_a_restored_run_continues_bit_for_bit(build):
    """Three steps, then three in a fresh model and trainer, equal six; one of them accumulates."""
    options = TrainOptions(loss_scale=1024.0, scale_window=2)
    work = [[batch_of(seed=seed)] for seed in range(5)] + [[batch_of(seed=5), batch_of(seed=6)]]
    straight = begin(build(), options)
    expected = [straight.step(batches, RATE / (i + 1)) for i, batches in enumerate(work)]

    first = begin(build(), options)
    reports = [first.step(batches, RATE / (i + 1)) for i, batches in enumerate(work[:3])]
    second = begin(build(), options)
    second.restore(kept(first.parameters()), kept(first.state()))
    reports += [second.step(batches, RATE / (i + 4)) for i, batches in enumerate(work[3:])]

    assert reports == expected
    assert_bits_equal(kept(second.parameters()), kept(straight.parameters()))
    assert_bits_equal(kept(second.state()), kept(straight.state()))
    assert straight.state()["step"] == 6
    assert straight.state()["loss_scale"] == 1024 * 2**3


def test_state_is_named_after_the_parameters(build):
    trainer = begin(build())
    names = trainer.parameters().keys()
    state = trainer.state()
    moments = {f"adam_{kind}.{name}" for kind in "mv" for name in names}
    assert state.keys() == moments | {"step", "loss_scale", "good_steps"}
    for name in names:
        assert state[f"adam_v.{name}"].shape == trainer.parameters()[name].shape
        assert state[f"adam_v.{name}"].dtype == np.float32


@pytest.mark.parametrize("spoil", ["missing", "unexpected", "shape", "state"])
def test_what_does_not_fit_is_not_restored(build, spoil):
    trainer = begin(build())
    before = kept(trainer.parameters())
    parameters, state = kept(trainer.parameters()), kept(trainer.state())
    name = next(iter(parameters))
    if spoil == "missing":
        del parameters[name]
    elif spoil == "unexpected":
        parameters["other.weight"] = np.zeros(3, np.float32)
    elif spoil == "shape":
        parameters[name] = parameters[name][:-1]
    else:
        del state[f"adam_v.{name}"]
    with pytest.raises(ParameterMismatchError):
        trainer.restore(parameters, state)
    assert_bits_equal(kept(trainer.parameters()), before)


def on_rank_of_threads(communicator, shared):
    """Two steps, a save, a restore from this rank's own rows, two steps."""
    cut = NetworkCut(
        data_parallel=communicator.world_size, optimizer_parallel=shared, optimizer_threshold=256
    )
    options = TrainOptions(cut=cut)
    whole = [batch_of(rows=4, supervised=[3, 12, 1, 9], seed=seed) for seed in range(4)]
    mine = slice(communicator.rank, None, communicator.world_size)
    work = [MicroBatch(batch.input_ids[mine], batch.targets[mine]) for batch in whole]
    weights = NumpyModel.random(CONFIG, seed=1, scale=0.3).parameters()
    straight = begin(model_of("numpy", weights), options, communicator)
    reports = [straight.step([batch], RATE) for batch in work[:2]]
    rows = straight.shares()
    parameters = {n: array[rows.get(n, slice(None))] for n, array in kept(straight.parameters()).items()}
    resumed = begin(model_of("numpy", weights), options, communicator)
    resumed.restore(parameters, kept(straight.state()))
    again = [resumed.step([batch], RATE) for batch in work[2:]]
    assert again == [straight.step([batch], RATE) for batch in work[2:]]
    assert_bits_equal(kept(resumed.parameters()), kept(straight.parameters()))
    assert_bits_equal(kept(resumed.state()), kept(straight.state()))
    return [*reports, *again], kept(straight.parameters()), rows


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("shared", [False, True])
def test_ranks_that_share_a_batch_learn_what_one_learns(size, shared):
    """In numpy and threads; of MindSpore's trainer real processes are asked, in another test."""
    ((expected, weights, _),) = Threads(1).run(on_rank_of_threads, False)
    for rank, (reports, found, rows) in enumerate(Threads(size).run(on_rank_of_threads, shared)):
        assert bool(rows) is shared
        for own in rows.values():
            assert own.start == rank * (own.stop - own.start)
        for report, wanted in zip(reports, expected, strict=True):
            assert report.loss == pytest.approx(wanted.loss, rel=1e-5)
            assert report.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-5)
        for name, array in weights.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5, err_msg=name)

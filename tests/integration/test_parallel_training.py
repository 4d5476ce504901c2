"""Training over real ranks: the losses of one process at the same global batch, whatever is shared out."""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.ports.training import MicroBatch, SupportsShares
from glm3.domain.tensors import DType, from_float32
from glm3.domain.training.options import TrainOptions
from support.models import mindspore_model, tiny_config
from support.worlds import OneRank, Processes

pytestmark = pytest.mark.slow

CONFIG = tiny_config(num_layers=1)
STEPS, ROWS, RATE = 3, 4, 1e-2


@pytest.fixture(scope="module")
def worlds():
    """Worlds by size, each started when it is first asked for."""
    made = {}

    def of_size(size):
        if size not in made:
            made[size] = Processes(size)
        return made[size]

    yield of_size
    for world in made.values():
        world.close()


def model_of(dtype=DType.FLOAT32):
    drawn = NumpyModel.random(CONFIG, seed=1, scale=0.3).parameters()
    stored = {name: from_float32(array, dtype) for name, array in drawn.items()}
    return mindspore_model(CONFIG, stored, kernels="cpu", dtype=dtype, dtypes=dict.fromkeys(stored, dtype))


def batches_of(step, rank, world_size, passes):
    """This rank's share of the global batch of a step; rows differ in what is supervised, one has nothing."""
    ids = np.random.default_rng(step).integers(0, 48, (ROWS, 13)).astype(np.int32)
    targets = ids[:, 1:].copy()
    for row in range(ROWS):
        targets[row, 3 * row :] = -100
    own = range(rank, ROWS, world_size)
    return [MicroBatch(ids[part, :-1], targets[part]) for part in np.array_split(own, passes) if len(part)]


def options_of(communicator, shared, dtype=DType.FLOAT32):
    cut = NetworkCut(
        data_parallel=communicator.world_size, optimizer_parallel=shared, optimizer_threshold=256
    )
    narrow = dtype is not DType.FLOAT32
    # With a smaller eps the sign alone of gradients that are rounding errors would move weights.
    return TrainOptions(cut=cut, master_weights=narrow, loss_scale=1024.0 if narrow else None, eps=1e-4)


def on_rank_train(communicator, shared, passes, dtype=DType.FLOAT32):
    """Return losses and norms, and, of rank 0, parameters and moments (collected from all ranks)."""
    trainer = model_of(dtype).trainer(options_of(communicator, shared, dtype), communicator)
    assert isinstance(trainer, SupportsShares)
    rank, size = communicator.rank, communicator.world_size
    reports = [trainer.step(batches_of(step, rank, size, passes), RATE) for step in range(STEPS)]
    parameters, state = dict(trainer.parameters()), dict(trainer.state())
    for name, own in trainer.shares().items():
        moment = state[f"adam_m.{name}"]
        assert len(moment) * size == len(parameters[name])
        assert (own.start, own.stop) == (rank * len(moment), (rank + 1) * len(moment))
        for kind in ("adam_m", "adam_v"):
            state[f"{kind}.{name}"] = np.concatenate(communicator.all_gather(state[f"{kind}.{name}"]))
    if passes == 1 and size > 1:
        assert len(trainer._parted.update.compile_cache) == 1, "compiled anew with each step's gradients"
    same = [communicator.all_gather(array) for array in parameters.values()]
    assert all(np.array_equal(other, found[0]) for found in same for other in found)
    communicator.barrier()
    return reports, (parameters, state) if rank == 0 else None, len(trainer.shares())


@pytest.fixture(scope="module")
def alone():
    return {
        dtype: OneRank().run(on_rank_train, False, 1, dtype)[0] for dtype in (DType.FLOAT32, DType.BFLOAT16)
    }


@pytest.mark.parametrize(
    ("size", "shared", "passes", "dtype"),
    [
        (2, False, 1, DType.FLOAT32),
        (2, True, 1, DType.FLOAT32),
        (2, True, 2, DType.FLOAT32),
        (2, True, 1, DType.BFLOAT16),
        (4, False, 1, DType.FLOAT32),
        (4, True, 1, DType.FLOAT32),
    ],
)
def test_ranks_train_as_one_process_does(worlds, alone, size, shared, passes, dtype):
    """Losses, norms, weights and moments; of what is shared out every rank has its part of the moments."""
    expected, (parameters, state), _ = alone[dtype]
    trained = worlds(size).run(on_rank_train, shared, passes, dtype)
    for reports, _, parts in trained:
        assert bool(parts) is shared
        for report, wanted in zip(reports, expected, strict=True):
            # bfloat16 gradients are rounded before they are added up, and a weight may round otherwise.
            accuracy = 1e-5 if dtype is DType.FLOAT32 else 1e-3
            assert report.loss == pytest.approx(wanted.loss, rel=accuracy)
            assert report.grad_norm == pytest.approx(wanted.grad_norm, rel=accuracy)
            assert report.supervised_tokens == wanted.supervised_tokens
    if dtype is DType.FLOAT32:
        _, (found, moments), _ = trained[0]
        for name, array in parameters.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=2e-5, err_msg=name)
            wanted = state[f"adam_v.{name}"]
            tolerance = 1e-4 * max(np.abs(wanted).max(), 1e-9)
            np.testing.assert_allclose(
                moments[f"adam_v.{name}"], wanted, rtol=0, atol=tolerance, err_msg=name
            )

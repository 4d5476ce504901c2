"""Training over real ranks: the losses of one process at the same global batch, whatever is shared out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.msckpt.store import MindSporeCheckpointStore
from glm3.adapters.strategy.store import FileStrategyStore
from glm3.application.merge_checkpoints import MergeRequest, merge_checkpoints
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.parameters import from_mindspore_name
from glm3.domain.ports.training import MicroBatch, SupportsShares
from glm3.domain.tensors import DType, from_float32
from glm3.domain.training.options import TrainOptions
from support.finetune import OneModel, train_on_mindspore, weights_in
from support.models import mindspore_model, tiny_config
from support.trainers import assert_bits_equal, kept
from support.worlds import OneRank, Processes

pytestmark = pytest.mark.slow

CONFIG = tiny_config(num_layers=1, add_bias_linear=True)
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


def batches_of(step, share, shares, passes):
    """A share of the global batch of a step; rows differ in what is supervised, one has nothing."""
    ids = np.random.default_rng(step).integers(0, 48, (ROWS, 13)).astype(np.int32)
    targets = ids[:, 1:].copy()
    for row in range(ROWS):
        targets[row, 3 * row :] = -100
    own = range(share, ROWS, shares)
    return [MicroBatch(ids[part, :-1], targets[part]) for part in np.array_split(own, passes) if len(part)]


def cut_of(copies, ways=1, shared=False):
    return NetworkCut(
        data_parallel=copies,
        model_parallel=ways,
        vocab_emb_dp=copies > 1,
        optimizer_parallel=shared,
        optimizer_threshold=256,
    )


def named(value):
    if not isinstance(value, NetworkCut):
        return str(value)
    return f"{value.data_parallel}x{value.model_parallel}{'-shared' * value.optimizer_parallel}"


def on_rank_train(communicator, cut, passes, dtype=DType.FLOAT32, resumes=False):
    """Return losses and norms, complete parameters, what is stored of them and of their states, and its rows.

    With ``resumes`` another trainer makes the last step from what was stored before, to the same bits.
    """
    narrow = dtype is not DType.FLOAT32
    # With a smaller eps the sign alone of gradients that are rounding errors would move weights.
    options = TrainOptions(cut=cut, master_weights=narrow, loss_scale=1024.0 if narrow else None, eps=1e-4)
    share = communicator.rank // cut.model_parallel
    trainer = model_of(dtype).trainer(options, communicator)
    assert isinstance(trainer, SupportsShares)
    reports = []
    for step in range(STEPS):
        before = kept(trainer.parameters()), kept(trainer.state())
        reports.append(trainer.step(batches_of(step, share, cut.data_parallel, passes), RATE))
    parameters, state, rows = kept(trainer.parameters()), kept(trainer.state()), dict(trainer.shares())
    complete = kept(trainer.complete_parameters())
    if passes == 1 and communicator.world_size > 1:
        assert len(trainer._parted.update.compile_cache) == 1, "compiled anew with each step's gradients"
    if resumes:
        again = model_of(dtype).trainer(options, communicator)
        stored = {name: array[rows[name]] if name in rows else array for name, array in before[0].items()}
        again.restore(stored, before[1])
        assert again.step(batches_of(STEPS - 1, share, cut.data_parallel, passes), RATE) == reports[-1]
        assert_bits_equal(kept(again.parameters()), parameters)
        assert_bits_equal(kept(again.state()), state)
    same = [communicator.all_gather(array) for array in complete.values()]
    assert all(np.array_equal(other, found[0]) for found in same for other in found)
    communicator.barrier()
    return reports, complete, parameters, state, rows


@pytest.fixture(scope="module")
def alone():
    return {
        dtype: OneRank().run(on_rank_train, cut_of(1), 1, dtype)[0]
        for dtype in (DType.FLOAT32, DType.BFLOAT16)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cut", "passes", "dtype"),
    [
        (cut_of(2), 1, DType.FLOAT32),
        (cut_of(2, shared=True), 1, DType.FLOAT32),
        (cut_of(2, shared=True), 2, DType.FLOAT32),
        (cut_of(2, shared=True), 1, DType.BFLOAT16),
        (cut_of(4), 1, DType.FLOAT32),
        (cut_of(4, shared=True), 1, DType.FLOAT32),
        (cut_of(1, 2), 1, DType.FLOAT32),
        (cut_of(1, 4), 1, DType.FLOAT32),  # two ranks hold a group of keys and values
        (cut_of(2, 2, shared=True), 1, DType.FLOAT32),
    ],
    ids=named,
)
def test_ranks_train_as_one_process_does(worlds, alone, cut, passes, dtype):
    """Losses, norms, weights and moments; every rank stores what the strategy says."""
    expected, whole, _, moments, _ = alone[dtype]
    world = worlds(cut.ranks_per_stage)
    world.begin(on_rank_train, cut, passes, dtype, cut == cut_of(1, 2))
    for rank, (reports, complete, parameters, state, rows) in enumerate(world.results(seconds=400)):
        assert bool(rows) is cut.optimizer_parallel
        for report, wanted in zip(reports, expected, strict=True):
            # bfloat16 gradients are rounded before they are added up, and a weight may round otherwise.
            accuracy = 1e-5 if dtype is DType.FLOAT32 else 1e-3
            assert report.loss == pytest.approx(wanted.loss, rel=accuracy)
            assert report.grad_norm == pytest.approx(wanted.grad_norm, rel=accuracy)
            assert report.supervised_tokens == wanted.supervised_tokens
        for name, array in whole.items():
            own = cut.layout(name, array.shape, dtype.itemsize).slices(array.shape, rank)
            stored = parameters[name][rows[name]] if name in rows else parameters[name]
            np.testing.assert_array_equal(stored, complete[name][own], err_msg=name)
            found, wanted = state[f"adam_v.{name}"], moments[f"adam_v.{name}"]
            assert found.shape == wanted[own].shape
            if dtype is DType.FLOAT32:
                np.testing.assert_allclose(complete[name], array, rtol=0, atol=1e-5, err_msg=name)
                limit = 1e-4 * max(np.abs(wanted).max(), 1e-9)
                np.testing.assert_allclose(found, wanted[own], rtol=0, atol=limit, err_msg=name)


def on_rank_finetune(communicator, folder, output, steps):
    """Run the whole of finetune for so many steps, two an epoch, and return the step reached."""
    ways = communicator.world_size
    report = train_on_mindspore(
        Path(folder),
        output,
        communicator,
        use_parallel=ways > 1,
        parallel_config={"model_parallel": ways},
        load_checkpoint=None,
        train_dataset__tokenizer__vocab_file=str(Path(folder) / "small" / "tokenizer.model"),
        runner_config__epochs=steps // 2,
    )
    return report.loop.steps_done


@pytest.mark.slow
def test_finetune_leaves_what_one_process_leaves(worlds, tmp_path):
    """The model folder, and the parts joined by their strategy."""
    OneModel(tmp_path / "small")
    world = worlds(2)
    world.begin(on_rank_finetune, str(tmp_path), "shared", 4)
    (steps,) = OneRank().run(on_rank_finetune, str(tmp_path), "alone", 4)
    assert world.results(seconds=400) == [steps, steps]
    expected, found = weights_in(tmp_path / "alone" / "model"), weights_in(tmp_path / "shared" / "model")
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-4, err_msg=name)
    request = MergeRequest(
        source=tmp_path / "shared" / "checkpoint",
        target=tmp_path / "joined",
        source_strategy=FileStrategyStore().read(tmp_path / "shared" / "strategy"),
        verify=True,
    )
    merge_checkpoints(request, [MindSporeCheckpointStore()])
    (made,) = (tmp_path / "joined").rglob("*.ckpt")
    last = next((tmp_path / "alone" / "checkpoint" / "rank_0").glob(f"*-{steps // 2}_2.ckpt"))
    with MindSporeCheckpointStore().open(made) as joined, MindSporeCheckpointStore().open(last) as whole:
        assert joined.tensors == whole.tensors
        for name in whole.tensors:
            wanted = whole.read(name)
            limit = 1e-4 * max(float(np.abs(wanted).max()), 1.0)
            np.testing.assert_allclose(joined.read(name), wanted, rtol=0, atol=limit, err_msg=name)
            own = from_mindspore_name(name)
            if own in found:
                np.testing.assert_array_equal(joined.read(name), found[own], err_msg=name)

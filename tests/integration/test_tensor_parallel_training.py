"""Training with matrices that ranks share: what one process computes, stores and goes on with."""

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
from glm3.domain.ports.training import MicroBatch
from glm3.domain.training.options import TrainOptions
from support.finetune import OneModel, train_on_mindspore, weights_in
from support.models import mindspore_model, tiny_config
from support.worlds import OneRank, Processes

STEPS, ROWS, RATE = 3, 4, 1e-2
SHARED = {"optimizer_parallel": True, "optimizer_threshold": 256}


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


def model_of(groups):
    config = tiny_config(num_layers=1, add_bias_linear=True, multi_query_group_num=groups)
    drawn = NumpyModel.random(config, seed=1, scale=0.3).parameters()
    return mindspore_model(config, drawn, kernels="cpu")


def batch_of(step, copy, copies):
    """A copy's share of the global batch of a step; rows differ in what is supervised, one has nothing."""
    ids = np.random.default_rng(step).integers(0, 48, (ROWS, 13)).astype(np.int32)
    targets = ids[:, 1:].copy()
    for row in range(ROWS):
        targets[row, 3 * row :] = -100
    return [MicroBatch(ids[copy::copies, :-1], targets[copy::copies])]


def kept(arrays):
    return {name: np.array(array) for name, array in arrays.items()}


def on_rank_train(communicator, cut, groups, resumes=False):
    """Return losses and norms, what is complete and what stored; with ``resumes`` make the last step anew."""
    # With a smaller eps the sign alone of gradients that are rounding errors would move weights.
    options = TrainOptions(cut=cut, eps=1e-4, max_grad_norm=0.5)
    copies = communicator.world_size // cut.model_parallel
    copy = communicator.rank // cut.model_parallel
    trainer = model_of(groups).trainer(options, communicator)
    reports = []
    for step in range(STEPS):
        if step == STEPS - 1:
            held = kept(trainer.parameters()), kept(trainer.state())
            rows = trainer.shares()
        reports.append(trainer.step(batch_of(step, copy, copies), RATE))
    complete = kept(trainer.complete_parameters())
    parameters, state = kept(trainer.parameters()), kept(trainer.state())
    if resumes:
        again = model_of(groups).trainer(options, communicator)
        stored = {name: array[rows[name]] if name in rows else array for name, array in held[0].items()}
        again.restore(stored, held[1])
        assert again.step(batch_of(STEPS - 1, copy, copies), RATE) == reports[-1]
        for name, array in kept(again.parameters()).items():
            np.testing.assert_array_equal(array, parameters[name], err_msg=name)
    same = [communicator.all_gather(array) for array in complete.values()]
    assert all(np.array_equal(other, found[0]) for found in same for other in found)
    communicator.barrier()
    return reports, complete, parameters, state, dict(trainer.shares())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cut", "groups"),
    [
        (NetworkCut(model_parallel=2, vocab_emb_dp=False), 1),  # both ranks hold the one group
        (NetworkCut(data_parallel=2, model_parallel=2, **SHARED), 2),
    ],
)
def test_ranks_that_share_matrices_train_as_one_process_does(worlds, cut, groups):
    """Losses, norms, weights and moments, in files that hold what the strategy says; resumed bit for bit."""
    world = worlds(cut.ranks_per_stage)
    world.begin(on_rank_train, cut, groups, not cut.optimizer_parallel)
    expected, whole, _, moments, _ = OneRank().run(on_rank_train, NetworkCut(), groups)[0]
    trained = world.results(seconds=400)
    for rank, (reports, complete, parameters, state, rows) in enumerate(trained):
        for report, wanted in zip(reports, expected, strict=True):
            assert report.loss == pytest.approx(wanted.loss, rel=1e-5)
            assert report.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-5)
            assert report.supervised_tokens == wanted.supervised_tokens
        assert bool(rows) is cut.optimizer_parallel
        for name, array in whole.items():
            own = cut.layout(name, array.shape).slices(array.shape, rank)
            stored = parameters[name][rows[name]] if name in rows else parameters[name]
            np.testing.assert_array_equal(stored, complete[name][own], err_msg=name)
            limit = 1e-5 * np.abs(array).max()
            np.testing.assert_allclose(complete[name], array, rtol=0, atol=limit, err_msg=name)
            wanted = moments[f"adam_v.{name}"]
            limit = 1e-4 * max(np.abs(wanted).max(), 1e-9)
            found = state[f"adam_v.{name}"]
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

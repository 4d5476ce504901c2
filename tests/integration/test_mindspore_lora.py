"""Adapters in the MindSpore network: what they compute, what they leave alone, how they merge."""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.domain.errors import InvalidInputError, ParameterMismatchError
from glm3.domain.ports.training import MicroBatch, SupportsLoRA
from glm3.domain.tensors import DType, from_float32
from glm3.domain.training.lora import LoRAConfig, adapted_modules, adapter_names, adapter_shapes, merge
from support.models import KERNEL_SETS, kernel_set, mindspore_model, tiny_config
from support.trainers import assert_bits_equal, assert_recomputes_its_dropout, begin, kept

CONFIG = tiny_config(num_layers=1)
EVERYWHERE = LoRAConfig(rank=3, alpha=6, target_modules="*")
IDS = np.random.default_rng(0).integers(0, 48, (2, 13))
RATE = 1e-2


@pytest.fixture(scope="module")
def parameters():
    return NumpyModel.random(CONFIG, seed=1, scale=0.3).parameters()


@pytest.fixture(params=KERNEL_SETS)
def kernels(request):
    return request.param


def batch():
    return MicroBatch(IDS[:, :-1].astype(np.int32), IDS[:, 1:].astype(np.int32))


def drawn(lora):
    """Return an adapter in which both matrices count."""
    generator = np.random.default_rng(2)
    return {
        name: 0.3 * generator.standard_normal(shape).astype(np.float32)
        for name, shape in adapter_shapes(CONFIG, lora).items()
    }


def folded(parameters, adapter, lora):
    """Fold an adapter into weights by the rule alone."""
    weights = dict(parameters)
    for module in adapted_modules(CONFIG, lora):
        a, b = adapter_names(module)
        weights[f"{module}.weight"] = merge(weights[f"{module}.weight"], adapter[a], adapter[b], lora.scale)
    return weights


def test_a_fresh_adapter_does_not_change_the_answers(parameters, kernels):
    model = mindspore_model(CONFIG, parameters, kernels=kernels)
    assert isinstance(model, SupportsLoRA)
    before = model.forward(IDS)
    model.add_lora(EVERYWHERE)
    np.testing.assert_array_equal(model.forward(IDS), before)
    shapes = {name: array.shape for name, array in model.adapter_parameters().items()}
    assert shapes == adapter_shapes(CONFIG, EVERYWHERE)


def test_unmerged_and_merged_answers_are_those_of_the_folded_weights(parameters, kernels):
    """Whole sequences and over a cache, before and after the merge, against the numpy model."""
    adapter = drawn(EVERYWHERE)
    expected = NumpyModel(CONFIG, folded(parameters, adapter, EVERYWHERE)).forward(IDS)
    model = mindspore_model(CONFIG, parameters, kernels=kernels)
    model.add_lora(EVERYWHERE)
    model.set_adapter_parameters(adapter)
    unmerged = model.forward(IDS)
    assert np.abs(unmerged - expected).max() < 1e-4
    cached = model.extend(model.new_cache(1, 13), [0], [IDS[0].tolist()])
    assert np.abs(cached[0] - expected[0, -1]).max() < 1e-4
    model.merge_lora()
    assert np.abs(model.forward(IDS) - unmerged).max() < 1e-5 * np.abs(unmerged).max()
    assert model.adapter_parameters() == {}


def test_only_the_adapter_is_trained(parameters, kernels):
    model = mindspore_model(CONFIG, parameters, kernels=kernels)
    model.add_lora(EVERYWHERE)
    trainer = begin(model)
    losses = [trainer.step([batch()], RATE).loss for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    names = adapter_shapes(CONFIG, EVERYWHERE).keys()
    assert trainer.parameters().keys() == names
    moments = {name for name in trainer.state() if name.startswith("adam_")}
    assert moments == {f"adam_{kind}.{name}" for kind in "mv" for name in names}
    assert_bits_equal(model.parameters(), parameters)
    assert_bits_equal(model.adapter_parameters(), kept(trainer.parameters()))


def test_gradients_are_those_of_the_product(parameters, kernels):
    """The slope of the loss along a direction of a and b, by differences of the numpy model in float32."""
    adapter = drawn(EVERYWHERE)
    model = mindspore_model(CONFIG, parameters, kernels=kernels)
    model.add_lora(EVERYWHERE)
    model.set_adapter_parameters(adapter)
    trainer = begin(model, max_grad_norm=None)
    trainer.step([batch()], RATE)
    gradients = {name: trainer.state()[f"adam_m.{name}"] / (1 - 0.9) for name in adapter}
    norm = np.sqrt(sum((gradient.astype(np.float64) ** 2).sum() for gradient in gradients.values()))

    def loss(step):
        moved = {name: array + step / norm * gradients[name] for name, array in adapter.items()}
        logits = NumpyModel(CONFIG, folded(parameters, moved, EVERYWHERE)).forward(IDS[:, :-1])
        logits = logits.astype(np.float64)
        picked = np.take_along_axis(logits, IDS[:, 1:, None], -1)[..., 0]
        return (np.log(np.exp(logits).sum(-1)) - picked).mean()

    assert (loss(1e-2) - loss(-1e-2)) / 2e-2 == pytest.approx(norm, rel=5e-3)


def test_training_goes_on_after_a_merge_with_all_weights(parameters):
    model = mindspore_model(CONFIG, parameters, kernels="cpu")
    model.add_lora(EVERYWHERE)
    model.merge_lora()
    trainer = begin(model)
    trainer.step([batch()], RATE)
    assert trainer.parameters().keys() == parameters.keys()
    assert not any(np.array_equal(array, parameters[name]) for name, array in trainer.parameters().items())


def test_dropout_is_for_training_only_and_follows_the_seed(parameters):
    lora = LoRAConfig(rank=3, dropout=0.5, target_modules="*")

    def losses(seed, kernels):
        model = mindspore_model(CONFIG, parameters, kernels=kernels)
        model.add_lora(lora)
        model.set_adapter_parameters(drawn(lora))
        before = model.forward(IDS)
        trainer = begin(model, seed=seed)
        found = [trainer.step([batch()], 0.0).loss for _ in range(3)]
        np.testing.assert_array_equal(model.forward(IDS), before)
        return found

    first = losses(seed=0, kernels="cpu")
    assert len(set(first)) == 3, "every step draws another mask"
    assert losses(seed=0, kernels="cpu") == first
    assert losses(seed=1, kernels="cpu") != first
    np.testing.assert_allclose(losses(seed=0, kernels="stock"), first, rtol=1e-5)


@pytest.mark.parametrize("kernels", ["cpu", "stock"])
def test_dropout_zeroes_its_share_and_keeps_the_mean(kernels):
    """Masks of other keys and other layers have nothing to do with each other."""
    import mindspore as ms

    from glm3.adapters.mindspore.training.dropout import DropoutKey, KeyedDropout

    key, made = DropoutKey(), kernel_set(kernels, CONFIG)
    layers = [KeyedDropout(made, 0.3, key, salt).set_train(True) for salt in (0, 1)]
    x = ms.Tensor(np.ones((200, 300), np.float32))
    masks = []
    for identity in ((0, 0), (0, 1)):
        key.set(*identity)
        masks += [layer(x).asnumpy() for layer in layers]
    for mask in masks:
        assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.7)}
        assert (mask == 0).mean() == pytest.approx(0.3, abs=0.01)  # 5 standard deviations
        assert np.abs((mask == 0).mean(axis=0) - 0.3).max() < 0.17
        assert np.abs((mask == 0).mean(axis=1) - 0.3).max() < 0.14
    for i in range(len(masks)):
        for j in range(i):
            agreement = ((masks[i] == 0) == (masks[j] == 0)).mean()
            assert agreement == pytest.approx(0.3**2 + 0.7**2, abs=0.011)
    np.testing.assert_array_equal(layers[0].set_train(False)(x).asnumpy(), x.asnumpy())


@pytest.mark.parametrize("recompute", [False, True])
def test_dropout_resumes_bit_for_bit(parameters, recompute):
    """A micro-batch has a mask of its own, which neither resuming nor recomputing changes."""
    lora = LoRAConfig(rank=3, dropout=0.3)

    def adapted():
        model = mindspore_model(CONFIG, parameters, kernels="cpu")
        model.add_lora(lora, seed=5)
        return begin(model, seed=3, recompute=recompute)

    straight = adapted()
    expected = [straight.step([batch(), batch()], RATE) for _ in range(4)]
    first = adapted()
    reports = [first.step([batch(), batch()], RATE) for _ in range(2)]
    second = adapted()
    second.restore(kept(first.parameters()), kept(first.state()))
    reports += [second.step([batch(), batch()], RATE) for _ in range(2)]
    assert reports == expected
    assert_bits_equal(kept(second.parameters()), kept(straight.parameters()))


@pytest.mark.slow
def test_recomputed_layers_draw_their_first_dropout_again(parameters):
    """The optimizer's moments of a first step are its gradients: recomputing changes none, a seed does."""

    def gradients(seed, recompute):
        model = mindspore_model(CONFIG, parameters, kernels="cpu")
        model.add_lora(LoRAConfig(rank=3, dropout=0.3), seed=5)
        trainer = begin(model, seed=seed, recompute=recompute)
        trainer.step([batch()], RATE)
        return kept(trainer.state())

    assert_recomputes_its_dropout(gradients)


def test_adapters_of_a_narrow_model_are_float32_and_merge_into_its_precision(parameters):
    stored = {name: from_float32(array, DType.BFLOAT16) for name, array in parameters.items()}
    dtypes = dict.fromkeys(stored, DType.BFLOAT16)
    model = mindspore_model(CONFIG, stored, kernels="cpu", dtype=DType.BFLOAT16, dtypes=dtypes)
    model.add_lora(EVERYWHERE)
    trainer = begin(model)
    losses = [trainer.step([batch()], RATE).loss for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    adapter = kept(trainer.parameters())
    assert {array.dtype for array in adapter.values()} == {np.dtype(np.float32)}
    base = model.parameters()
    model.merge_lora()
    for name, array in folded(base, adapter, EVERYWHERE).items():
        np.testing.assert_allclose(model.parameters()[name], array, rtol=2**-8, atol=1e-6)


def test_adapters_are_added_once_and_replaced_whole(parameters):
    model = mindspore_model(CONFIG, parameters)
    with pytest.raises(InvalidInputError, match="no adapter"):
        model.merge_lora()
    model.add_lora(EVERYWHERE)
    with pytest.raises(InvalidInputError, match="adapted already"):
        model.add_lora(EVERYWHERE)
    adapter = drawn(EVERYWHERE)
    name, array = adapter.popitem()
    with pytest.raises(ParameterMismatchError, match="missing"):
        model.set_adapter_parameters(adapter)
    with pytest.raises(ParameterMismatchError, match="expected"):
        model.set_adapter_parameters({**adapter, name: array[:1]})

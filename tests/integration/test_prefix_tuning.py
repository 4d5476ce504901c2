"""Learned prefixes in both networks: what they compute, what is trained, how caches hold them."""

from __future__ import annotations

import numpy as np
import pytest

from glm3.adapters.memory.numpy_backend import NumpyBackend
from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.mindspore.backend import MindSporeBackend
from glm3.domain.errors import ContextLengthError, InvalidInputError, ParameterMismatchError
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.ports.training import MicroBatch, SupportsPrefix
from glm3.domain.prompt_cache import PromptCache
from glm3.domain.tensors import DType, from_float32
from glm3.domain.training.lora import LoRAConfig
from glm3.domain.training.options import OptimizerKind
from glm3.domain.training.prefix import PrefixConfig, prefix_keys_values, prefix_shapes
from glm3.entrypoints.paths import cache_folder
from support.models import KERNEL_SETS, ArrayReader, mindspore_model, native_model, tiny_config
from support.native import kernel_build
from support.torch_prefix import TorchPrefixModel
from support.trainers import assert_bits_equal, assert_recomputes_its_dropout, begin, kept

CONFIG = tiny_config()
SMALL = tiny_config(
    num_layers=1
)  # each new trainer compiles its graphs, in seconds that grow with the layers
PLAIN = PrefixConfig(length=5)
PROJECTED = PrefixConfig(length=3, projection=True, projection_size=7)
KINDS = {"plain": PLAIN, "projected": PROJECTED, "hidden_size": PrefixConfig(length=2, projection=True)}
IDS = np.random.default_rng(0).integers(0, 48, (2, 13))
RATE = 1e-2


@pytest.fixture(scope="module")
def parameters():
    return NumpyModel.random(CONFIG, seed=1, scale=0.3).parameters()


@pytest.fixture(params=["numpy", "native", *KERNEL_SETS])
def adapter(request):
    return request.param


def model_of(adapter, parameters, config=CONFIG):
    if adapter == "native":
        return native_model(config, parameters)
    if adapter == "numpy":
        return NumpyModel(config, {name: array.copy() for name, array in parameters.items()})
    return mindspore_model(config, parameters, kernels=adapter)


@pytest.fixture(scope="module")
def small_parameters():
    return NumpyModel.random(SMALL, seed=1, scale=0.3).parameters()


def with_prefix(adapter, parameters, prefix, seed=2, config=CONFIG):
    model = model_of(adapter, parameters, config)
    assert isinstance(model, SupportsPrefix)
    model.add_prefix(prefix, seed)
    return model


def oracle(parameters, model, config=CONFIG):
    return TorchPrefixModel(config, parameters, model.adapter_parameters())


def batch(ids=IDS, supervised=None):
    targets = ids[:, 1:].astype(np.int32).copy()
    if supervised is not None:
        targets[:, supervised:] = -100
    return MicroBatch(ids[:, :-1].astype(np.int32), targets)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_torch_with_past_keys_and_values(parameters, adapter, kind):
    """All tokens see the whole prefix, and the first of them stands at position 0."""
    model = with_prefix(adapter, parameters, KINDS[kind])
    shapes = {name: array.shape for name, array in model.adapter_parameters().items()}
    assert shapes == prefix_shapes(CONFIG, KINDS[kind])
    expected = oracle(parameters, model).logits(IDS).detach().numpy()
    assert np.abs(model.forward(IDS) - expected).max() < 1e-4
    assert np.abs(model_of(adapter, parameters).forward(IDS) - expected).max() > 0.1


def test_padding_and_positions_of_ones_own_do_not_move_the_prefix(parameters, adapter):
    model = with_prefix(adapter, parameters, PLAIN)
    numpy_model = with_prefix("numpy", parameters, PLAIN)
    mask = np.ones_like(IDS)
    mask[0, :4] = 0
    positions = np.maximum(np.cumsum(mask, 1) - 1, 0)
    positions[1] += 7
    arguments = {"attention_mask": mask, "position_ids": positions}
    expected = numpy_model.forward(IDS, **arguments)
    np.testing.assert_allclose(model.forward(IDS, **arguments)[mask != 0], expected[mask != 0], atol=1e-4)
    alone = oracle(parameters, model).logits(IDS[:1, 4:]).detach().numpy()
    np.testing.assert_allclose(model.forward(IDS, **arguments)[0, 4:], alone[0], atol=1e-4)
    states = zip(
        model.hidden_states(IDS, **arguments), numpy_model.hidden_states(IDS, **arguments), strict=True
    )
    for state, reference in states:
        np.testing.assert_allclose(state[mask != 0], reference[mask != 0], atol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "projected"])
def test_a_cache_answers_as_whole_sequences_do(parameters, adapter, kind):
    """Prompts of unequal length, chunks and single tokens; a row cut back and a row copied."""
    model = with_prefix(adapter, parameters, KINDS[kind])
    expected = oracle(parameters, model).logits(IDS).detach().numpy()
    cache = model.new_cache(3, 13)

    def extend(rows, tokens):
        return model.extend(cache, rows, [list(ids) for ids in tokens])

    scores = extend([0, 2], [IDS[0, :6], IDS[1, :9]])
    np.testing.assert_allclose(scores, [expected[0, 5], expected[1, 8]], atol=1e-4)
    np.testing.assert_allclose(extend([0], [IDS[0, 6:7]])[0], expected[0, 6], atol=1e-4)
    cache.copy_row(0, 1)
    assert [cache.length(row) for row in range(3)] == [7, 7, 9]
    extend([0], [[1, 2, 3]])
    cache.truncate(0, 7)
    np.testing.assert_allclose(
        extend([1, 0], [IDS[0, 7:], IDS[0, 7:]]), [expected[0, -1], expected[0, -1]], atol=1e-4
    )
    cache.truncate(2, 0)
    np.testing.assert_allclose(extend([2], [IDS[0]])[0], expected[0, -1], atol=1e-4)


def test_the_prefix_takes_no_room_of_the_context(parameters, adapter):
    """A cache of the whole context holds so many tokens, and not one more."""
    model = with_prefix(adapter, parameters, PLAIN)
    cache = model.new_cache(1, CONFIG.seq_length)
    assert cache.capacity == CONFIG.seq_length
    ids = np.resize(IDS[0], CONFIG.seq_length).tolist()
    expected = oracle(parameters, model).logits(np.array([ids])).detach().numpy()
    np.testing.assert_allclose(model.extend(cache, [0], [ids])[0], expected[0, -1], atol=1e-4)
    with pytest.raises(ContextLengthError):
        model.extend(cache, [0], [[1]])


def test_a_prompt_cache_goes_on_behind_the_prefix(parameters, adapter):
    model = with_prefix(adapter, parameters, PLAIN)
    expected = oracle(parameters, model).logits(IDS).detach().numpy()
    cache = PromptCache.allocate(model, 20)
    cache.prefill([*IDS[0, :8].tolist(), 9, 9, 9], chunk_size=4)
    assert cache.common_prefix(IDS[0].tolist()) == 8
    scores = cache.prefill(IDS[0].tolist(), chunk_size=4)
    np.testing.assert_allclose(scores, expected[0, -1], atol=1e-4)


@pytest.mark.parametrize(("format_", "tolerance"), [("fp16", 0.01), ("int8", 0.2)])
def test_a_narrow_cache_holds_the_prefix_rounded(parameters, format_, tolerance):
    """By the rule that rounds a token's own keys and values: the error is theirs, and not that of a loss."""
    model = native_model(CONFIG, parameters, kv_cache=format_)
    model.add_prefix(PLAIN, 2)
    expected = oracle(parameters, model).logits(IDS).detach().numpy()
    cache = model.new_cache(2, 13)
    scores = model.extend(cache, [0, 1], [ids.tolist() for ids in IDS])
    assert 0 < np.abs(scores - expected[:, -1]).max() < tolerance
    learned = prefix_keys_values(CONFIG, model.adapter_parameters())
    for layer, arrays in enumerate(cache.arrays):
        for kind, (numbers, scales) in enumerate(
            [(arrays.keys, arrays.key_scales), (arrays.values, arrays.value_scales)]
        ):
            held = numbers[:, :5].astype(np.float32)
            held = held if scales is None else held * scales[:, :5, :, None]
            wanted = learned[:, layer, kind]
            unit = np.abs(wanted).max(-1, keepdims=True) / (127 if format_ == "int8" else 1024)
            assert (np.abs(held - wanted) <= 0.501 * unit).all()


def test_rounded_weights_take_a_prefix(parameters):
    """A base of eight bits answers as the numpy model over the same rounded weights does, nearly."""
    kernel_build()  # skips where no compiler is
    reader = ArrayReader(parameters)
    rounded = [
        backend.load(CONFIG, reader, LoadOptions(quant="int8"))
        for backend in (NumpyBackend(), MindSporeBackend(cache_folder() / "kernels"))
    ]
    for model in rounded:
        model.add_prefix(PROJECTED, 2)
    expected, found = (model.forward(IDS) for model in rounded)
    assert np.sqrt(np.mean((found - expected) ** 2) / np.var(expected)) < 0.06


@pytest.mark.parametrize("adapter", ["stock", "cpu", "native"])
def test_a_cache_from_before_is_refused(parameters, adapter):
    model = model_of(adapter, parameters)
    cache = model.new_cache(1, 13)
    model.add_prefix(PLAIN)
    with pytest.raises(InvalidInputError, match=r"older than|another model"):
        model.extend(cache, [0], [[1]])


@pytest.mark.parametrize(("kernels", "kind"), [("stock", "projected"), ("cpu", "plain")])
def test_gradients_are_those_of_torch(parameters, kernels, kind):
    """The first moments of a first step are a tenth of the gradients, which are not clipped."""
    model = with_prefix(kernels, parameters, KINDS[kind])
    reference = oracle(parameters, model)
    work = batch(supervised=9)
    loss = reference.loss(work.input_ids, work.targets)
    loss.backward()
    trainer = begin(model, beta1=0.9, max_grad_norm=None)
    assert trainer.step([work], RATE).loss == pytest.approx(loss.item(), rel=1e-5)
    state = trainer.state()
    for name, weight in reference.prefix.items():
        gradient = weight.grad.numpy()
        np.testing.assert_allclose(
            10 * state[f"adam_m.{name}"], gradient, rtol=0, atol=1e-5 * np.abs(gradient).max()
        )


def test_the_numpy_trainer_takes_nearly_the_same_step(small_parameters):
    """Its gradients are differences of float32 losses: good to a hundredth."""
    moments = []
    for adapter in ("numpy", "stock"):
        model = with_prefix(adapter, small_parameters, PrefixConfig(length=2), config=SMALL)
        trainer = begin(model, max_grad_norm=None)
        trainer.step([batch(IDS[:, :6])], RATE)
        moments.append(trainer.state()["adam_m.transformer.prefix_encoder.embedding.weight"])
    np.testing.assert_allclose(moments[0], moments[1], rtol=0, atol=1e-2 * np.abs(moments[1]).max())


@pytest.mark.parametrize("adapter", ["numpy", "stock"])
def test_only_the_prefix_is_trained(small_parameters, adapter):
    model = with_prefix(adapter, small_parameters, PrefixConfig(length=2), config=SMALL)
    before, prefix = kept(model.parameters()), kept(model.adapter_parameters())
    trainer = begin(model, optimizer=OptimizerKind.FP32_STATE_ADAM_WEIGHT_DECAY)
    losses = [trainer.step([batch(IDS[:, :6])], RATE).loss for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert trainer.parameters().keys() == prefix.keys()
    assert {name for name in trainer.state() if "." in name} == {
        f"adam_{kind}.{name}" for kind in "mv" for name in prefix
    }
    assert_bits_equal(kept(model.parameters()), before)
    assert_bits_equal(kept(trainer.parameters()), kept(model.adapter_parameters()))
    for name, array in model.adapter_parameters().items():
        assert np.abs(array - prefix[name]).max() > 0, name


def test_recomputed_layers_and_parts_of_a_batch_teach_the_same(small_parameters):
    """Two halves of a batch through recomputed layers add up to the whole."""
    reports, learned = [], []
    for recompute, batches in ((False, [batch()]), (True, [batch(IDS[:1]), batch(IDS[1:])])):
        model = with_prefix("cpu", small_parameters, PROJECTED, config=SMALL)
        trainer = begin(model, recompute=recompute)
        reports.append(trainer.step(batches, RATE))
        learned.append(kept(trainer.state()))
    assert reports[0].grad_norm == pytest.approx(reports[1].grad_norm, rel=1e-5)
    assert reports[0].loss == pytest.approx(reports[1].loss, rel=1e-6)
    for name, array in learned[0].items():
        np.testing.assert_allclose(learned[1][name], array, rtol=1e-3, atol=1e-5 * np.abs(array).max())


def test_dropout_is_for_training_alone_and_resumes(small_parameters):
    """Scores are those without it; a restored trainer draws the masks that the straight run drew."""
    config = PrefixConfig(length=5, dropout=0.5)
    model = with_prefix("cpu", small_parameters, config, config=SMALL)
    work, reference = batch(), oracle(small_parameters, model, SMALL)
    expected = reference.logits(work.input_ids).detach().numpy()
    np.testing.assert_allclose(model.forward(work.input_ids), expected, atol=1e-4)
    straight = begin(model, seed=4)
    losses = [straight.step([work], RATE).loss]
    assert abs(losses[0] - reference.loss(work.input_ids, work.targets).item()) > 1e-3
    parameters, state = kept(straight.parameters()), kept(straight.state())
    losses.append(straight.step([work], RATE).loss)
    second = begin(with_prefix("cpu", small_parameters, config, seed=9, config=SMALL), seed=4)
    second.restore(parameters, state)
    assert second.step([work], RATE).loss == losses[1]
    assert_bits_equal(kept(second.parameters()), kept(straight.parameters()))


@pytest.mark.slow
def test_recomputed_layers_behind_a_prefix_see_its_first_dropout(small_parameters):
    """The optimizer's moments of a first step are its gradients: recomputing changes none, a seed does."""

    def gradients(seed, recompute):
        config = PrefixConfig(length=5, dropout=0.5)
        trainer = begin(
            with_prefix("cpu", small_parameters, config, config=SMALL), seed=seed, recompute=recompute
        )
        trainer.step([batch()], RATE)
        return kept(trainer.state())

    assert_recomputes_its_dropout(gradients)


def test_over_a_bfloat16_base(small_parameters):
    narrow = {
        name: from_float32(array, DType.BFLOAT16).view(np.uint16) for name, array in small_parameters.items()
    }
    dtypes = dict.fromkeys(small_parameters, DType.BFLOAT16)
    model = mindspore_model(SMALL, narrow, dtype=DType.BFLOAT16, dtypes=dtypes)
    model.add_prefix(PLAIN)
    assert {array.dtype for array in model.adapter_parameters().values()} == {np.dtype(np.float32)}
    before = kept(model.parameters())
    trainer = begin(model, master_weights=True)
    assert trainer.step([batch()], 0.1).loss > trainer.step([batch()], 0.1).loss
    assert_bits_equal(kept(model.parameters()), before)


def test_what_does_not_fit_is_refused(parameters, adapter):
    model = model_of(adapter, parameters)
    with pytest.raises(InvalidInputError, match="no adapter"):
        model.set_adapter_parameters({})
    model.add_prefix(PLAIN)
    with pytest.raises(InvalidInputError, match="adapted already"):
        model.add_prefix(PLAIN)
    given = model.adapter_parameters()
    with pytest.raises(ParameterMismatchError):
        model.set_adapter_parameters({name: array[:-1] for name, array in given.items()})
    assert_bits_equal(kept(model.adapter_parameters()), given)


def test_a_prefix_and_low_rank_adapters_exclude_each_other(parameters):
    model = with_prefix("stock", parameters, PLAIN)
    with pytest.raises(InvalidInputError, match="adapted already"):
        model.add_lora(LoRAConfig())
    with pytest.raises(InvalidInputError, match="cannot be folded"):
        model.merge_lora()

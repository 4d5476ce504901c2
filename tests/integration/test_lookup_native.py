"""Look-up decoding with real networks: the same ids as one token at a time, in fewer passes."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from glm3.adapters.mindspore.backend import MindSporeBackend
from glm3.domain.decoding import generate
from glm3.domain.generation import GenerationConfig
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.tensors import DType, from_float32
from glm3.entrypoints.paths import cache_folder
from support.models import GOLDEN_MODELS, ArrayReader, golden_config, golden_parameters
from support.native import kernel_build

LOADINGS = {
    "fp32": LoadOptions(),
    "fp16": LoadOptions(dtype=DType.FLOAT16),
    "bf16": LoadOptions(dtype=DType.BFLOAT16),
    "int8": LoadOptions(quant="int8", kv_cache="int8"),
    "int4": LoadOptions(quant="int4"),
}


@pytest.fixture(scope="module", params=[(name, loading) for name in GOLDEN_MODELS for loading in LOADINGS])
def model(request):
    kernel_build()  # skips where no compiler is
    name, loading = request.param
    options = LOADINGS[loading]
    parameters = {
        key: from_float32(np.asarray(array, np.float32), options.dtype)
        for key, array in golden_parameters(name).items()
    }
    reader = ArrayReader(parameters, dict.fromkeys(parameters, options.dtype))
    return MindSporeBackend(cache_folder() / "kernels").load(golden_config(name), reader, options)


class Counted:
    """Count the passes of a model, and those that checked guesses."""

    def __init__(self, model):
        self._model, self.passes, self.guesses = model, 0, 0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def extend(self, *arguments):
        self.passes += 1
        return self._model.extend(*arguments)

    def verify(self, *arguments):
        self.passes += 1
        self.guesses += 1
        return self._model.verify(*arguments)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("vocab_size", [5, 30])
def test_ids_and_logprobs_are_those_of_one_token_at_a_time(model, sampled, vocab_size):
    """Few ids repeat often, and are guessed rightly and wrongly."""
    options = GenerationConfig(
        max_new_tokens=64,
        do_sample=sampled,
        temperature=0.5,
        seed=1,
        logprobs=True,
        vocab_size=vocab_size,
        lookup=False,
    )
    prompt = [7, 3, 4, 2, 1, 0, 3, 2, 4, 1] * 3
    plain, looked_up = Counted(model), Counted(model)
    expected = generate(plain, [prompt], options)
    assert generate(looked_up, [prompt], evolve(options, lookup=True)) == expected
    assert looked_up.passes <= plain.passes == 64
    assert looked_up.guesses > plain.guesses == 0

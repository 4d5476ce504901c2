"""Options that several commands share, and what they mean together."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from glm3.domain.generation import GenerationConfig
    from glm3.domain.ports.backend import LoadOptions

__all__ = [
    "Adapter",
    "CacheFormat",
    "Dtype",
    "KVCache",
    "Kernels",
    "Lookup",
    "LoraAlpha",
    "Model",
    "Precision",
    "Quant",
    "Threads",
    "load_options",
    "sampling_options",
]

Model = Annotated[
    str,
    typer.Option(
        "-m",
        "--model",
        metavar="MODEL",
        envvar="GLM3_MODEL",
        help="A folder with a checkpoint, a YAML file, or a name: tiny (embedded), glm3_6b (downloaded).",
    ),
]


Kernels = Annotated[
    str,
    typer.Option(
        metavar="SET",
        help="Kernel set: auto takes the fastest on the CPU, stock any machine's, ascend a card's.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads to compute with. [default: physical cores]", show_default=False),
]


Adapter = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="A LoRA adapter or a prefix to answer with; the model is its base then."
    ),
]


class Precision(StrEnum):
    """How parameters are held in memory, or floating tensors written."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


Dtype = Annotated[Precision, typer.Option(help="Precision of the weights in memory.")]


LoraAlpha = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="How strong an adapter in a .ckpt is, where no adapter_config.json or YAML beside it says so.",
    ),
]


Quant = Annotated[
    str | None,
    typer.Option(
        metavar="SCHEME",
        help="Round the weights while loading: int8, int4; also int4-g64, int4-g32-asym, int8-g32 and so on.",
    ),
]


class CacheFormat(StrEnum):
    """How keys and values are held."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


KVCache = Annotated[
    CacheFormat | None,
    typer.Option(
        help="Format of keys and values. [default: fp16 with --quant, else fp32]", show_default=False
    ),
]


Lookup = Annotated[
    bool,
    typer.Option(
        "--lookup/--no-lookup",
        help="Compute what repeats earlier text several tokens at a time; the answer is the same.",
    ),
]


def load_options(
    kernels: str,
    dtype: Precision,
    threads: int | None,
    quant: str | None = None,
    kv_cache: CacheFormat | None = None,
) -> LoadOptions:
    """Combine the options of loading a model.

    Raises:
        ConfigError: there is no such quantisation.
    """
    from glm3.domain.ports.backend import LoadOptions
    from glm3.domain.tensors import DType

    return LoadOptions(
        kernels=kernels,
        dtype=DType(dtype.value),
        threads=threads,
        quant=quant,
        kv_cache=None if kv_cache is None else kv_cache.value,
    )


def sampling_options(
    *,
    max_new_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    repetition_penalty: float | None,
    seed: int | None,
    greedy: bool,
    lookup: bool,
) -> tuple[GenerationConfig, frozenset[str]]:
    """Combine the sampling options of a chat; also return the names of the fields that they decide.

    Raises:
        UsageError: an option that shapes sampling stands beside ``greedy``.
        InvalidInputError: a value is out of range.
    """
    from glm3.domain.errors import UsageError
    from glm3.domain.generation import GenerationConfig

    shaping = {"--temperature": temperature, "--top-p": top_p, "--top-k": top_k, "--seed": seed}
    given = [name for name, value in shaping.items() if value is not None]
    if greedy and given:
        raise UsageError(
            "greedy decoding does not sample",
            found=", ".join(given),
            hint="leave --greedy out, or the others",
        )
    values = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "do_sample": not greedy if greedy or given else None,
    }
    named = {name: value for name, value in values.items() if value is not None}
    options = GenerationConfig(
        max_new_tokens=max_new_tokens, seed=seed, lookup=lookup, **cast("dict[str, Any]", named)
    )
    return options, frozenset(named)

"""Low-rank adapters (LoRA, Hu et al. 2021): what they adapt, what they are called, how they merge.

An adapter of a linear layer ``X`` is two matrices, ``a (rank, in)`` and ``b (out, rank)``; the layer then
computes ``x W^T + bias + scale * dropout(x) a^T b^T``. Inside the project they carry the names of the model
card's library, mindpet; checkpoints of later MindFormers and of PEFT call them differently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from glm3.domain.errors import ConfigError
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import OPTIMIZER_PREFIXES, layer_prefix

__all__ = [
    "LINEAR_MODULES",
    "LoRAConfig",
    "adapted_modules",
    "adapter_names",
    "adapter_shapes",
    "from_adapter_name",
    "initial_adapter",
    "is_adapter_parameter",
    "is_adapter_state",
    "merge",
    "stored_adapter_config",
    "to_peft_name",
]

LINEAR_MODULES = (
    "self_attention.query_key_value",
    "self_attention.dense",
    "mlp.dense_h_to_4h",
    "mlp.dense_4h_to_h",
)
"""The linear layers of a block that can be adapted."""

_NAME = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\."
    r"(?:(?:mindpet|tk)_delta_lora_(?P<delta>[abAB])|lora_(?P<peft>[AB])(?:\.default)?\.weight)"
)


def _as_patterns(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@frozen(kw_only=True)
class LoRAConfig:
    """How a network is adapted.

    ``target_modules`` are globs or regular expressions, each for the whole of a module's last name:
    ``query_key_value``, ``dense``, ``dense_h_to_4h`` or ``dense_4h_to_h``. ``dropout`` is the share of an
    adapter's inputs that training sets to zero.

    Raises:
        ConfigError: a value is out of range, or a pattern matches no module.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = field(default=("query_key_value",), converter=_as_patterns)

    def __attrs_post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError("out of range", field="rank", expected="1 or more", found=self.rank)
        if not self.alpha > 0:
            raise ConfigError("out of range", field="alpha", expected="above 0", found=self.alpha)
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                "out of range", field="dropout", expected="from 0 to below 1", found=self.dropout
            )
        names = [_last(module) for module in LINEAR_MODULES]
        for pattern in self.target_modules:
            if not any(_matches(pattern, name) for name in names):
                raise ConfigError(
                    "matches no module",
                    field="target_modules",
                    expected=", ".join(names),
                    found=repr(pattern),
                )
        if not self.target_modules:
            raise ConfigError("names no module", field="target_modules", expected=", ".join(names))

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / self.rank

    def targets(self, module: str) -> bool:
        """Tell whether a module, given by its full or its last name, is adapted."""
        return any(_matches(pattern, _last(module)) for pattern in self.target_modules)


def adapted_modules(model: ModelConfig, lora: LoRAConfig) -> list[str]:
    """Return the full names of the modules that are adapted, in network order."""
    names = [layer_prefix(layer) + module for layer in range(model.num_layers) for module in LINEAR_MODULES]
    return [name for name in names if lora.targets(name)]


def adapter_names(module: str) -> tuple[str, str]:
    """Return the names of a module's ``a`` and ``b``."""
    return f"{module}.mindpet_delta_lora_a", f"{module}.mindpet_delta_lora_b"


def adapter_shapes(model: ModelConfig, lora: LoRAConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every adapter parameter by name, in network order."""
    hidden, ffn = model.hidden_size, model.ffn_hidden_size
    sizes = {  # in, out
        "self_attention.query_key_value": (hidden, model.qkv_size),
        "self_attention.dense": (model.attention_size, hidden),
        "mlp.dense_h_to_4h": (hidden, 2 * ffn),
        "mlp.dense_4h_to_h": (ffn, hidden),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for module in adapted_modules(model, lora):
        inputs, outputs = sizes[".".join(module.split(".")[-2:])]
        a, b = adapter_names(module)
        shapes |= {a: (lora.rank, inputs), b: (outputs, lora.rank)}
    return shapes


def initial_adapter(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
    """Draw a parameter of an adapter that changes nothing yet: ``a`` by He's rule for sqrt(5), ``b`` zero."""
    if name.endswith("_b"):
        return np.zeros(shape, np.float32)
    bound = (1 / shape[1]) ** 0.5  # sqrt(6 / ((1 + 5) * inputs))
    return generator.uniform(-bound, bound, shape).astype(np.float32)


def is_adapter_state(name: str) -> bool:
    """Tell adapters, named in any of the three manners, and their optimizer states from all else."""
    return _NAME.fullmatch(name) is not None


def is_adapter_parameter(name: str) -> bool:
    """Tell the parameters of adapters, named in any of the three manners, from all else."""
    return is_adapter_state(name) and not name.startswith(OPTIMIZER_PREFIXES)


def from_adapter_name(name: str) -> str:
    """Return the project's name for an adapter parameter called as mindpet, MindFormers or PEFT call it.

    Raises:
        ConfigError: it is no adapter parameter's name.
    """
    module, matrix = _parsed(name)
    return f"{module}.mindpet_delta_lora_{matrix}"


def stored_adapter_config(shapes: Mapping[str, tuple[int, ...]], alpha: float) -> LoRAConfig:
    """Return the configuration that an adapter's parameters tell, by the project's names; it has no dropout.

    Raises:
        ConfigError: they adapt what cannot be adapted, or differ in rank.
    """
    ranks = {shape[0] for name, shape in shapes.items() if name.endswith("_a")}
    if len(ranks) != 1:
        raise ConfigError("the adapter has no one rank", field="lora_rank", found=sorted(ranks))
    modules = dict.fromkeys(_last(_parsed(name)[0]) for name in shapes)
    return LoRAConfig(rank=ranks.pop(), alpha=alpha, target_modules=tuple(modules))


def to_peft_name(name: str) -> str:
    """Return what PEFT calls an adapter parameter in ``adapter_model.safetensors``."""
    module, matrix = _parsed(name)
    return f"base_model.model.{module}.lora_{matrix.upper()}.weight"


def merge(weight: NDArray[Any], a: NDArray[Any], b: NDArray[Any], scale: float) -> NDArray[np.float32]:
    """Return ``weight (out, in)`` with its adapter folded in, computed in float32."""
    update = b.astype(np.float32) @ a.astype(np.float32)
    return weight.astype(np.float32) + np.float32(scale) * update


def _parsed(name: str) -> tuple[str, str]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(
            "not an adapter parameter",
            field=name,
            expected="MODULE.mindpet_delta_lora_a, MODULE.tk_delta_lora_a or MODULE.lora_A.weight, or b",
        )
    return match["module"], (match["delta"] or match["peft"]).lower()


def _last(module: str) -> str:
    return module.rpartition(".")[2]


def _matches(pattern: str, name: str) -> bool:
    if fnmatchcase(name, pattern):
        return True
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:  # a glob need not be a regular expression
        return False

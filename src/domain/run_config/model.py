"""The sections ``model``, ``trainer`` and ``processor``: the network, its tokenizer, their adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Factory, evolve, field, fields, frozen

from glm3.domain.coercion import as_bool, as_float, as_text, optional
from glm3.domain.errors import ConfigError, MultipleFaultsError
from glm3.domain.model_config import ModelConfig
from glm3.domain.run_config.schema import (
    Reading,
    key,
    note_unknown_key,
    optional_section,
    read_record,
    section,
    special,
)
from glm3.domain.run_config.tree import Node, plain
from glm3.domain.run_config.values import choice, integer_at_least, probability, texts

__all__ = [
    "FOREIGN_KEYS",
    "ArchConfig",
    "ModelSection",
    "PetConfig",
    "ProcessorConfig",
    "TokenizerConfig",
    "TrainerConfig",
    "read_model",
]

FOREIGN_KEYS = frozenset(
    # Hugging Face's
    {"_name_or_path", "architectures", "auto_map", "model_type", "torch_dtype", "transformers_version"}
    # of later MindFormers releases
    | {"n_kv_heads", "num_heads", "offset", "pp_interleave_num", "rotary_dtype"}
)
"""Keys of ``model_config`` that other systems know; they are kept in ``ModelConfig.extras``."""

_MODEL_KEYS = tuple(a.name for a in fields(ModelConfig))


@frozen(kw_only=True)
class PetConfig:
    """Parameter-efficient tuning: low-rank adapters or a prefix; the defaults are MindPet's."""

    pet_type: str = key("lora", choice("lora", "ptuning2"), "method")
    lora_rank: int = key(8, integer_at_least(1), "width of the adapter")
    lora_alpha: float = key(16.0, as_float, "the adapter's output is scaled by lora_alpha / lora_rank")
    lora_dropout: float = key(0.01, probability, "dropout in front of the adapter")
    target_modules: str | None = key(
        None, optional(as_text), "regular expression of the linear layers that get one"
    )
    exclude_layers: tuple[str, ...] = key((), texts, "layers that get none, * is a wildcard")
    freeze_include: tuple[str, ...] = key((), texts, "parameters to freeze, * is a wildcard")
    freeze_exclude: tuple[str, ...] = key((), texts, "parameters to leave trainable")
    param_init_type: str = key("float16", choice("float32", "float16", "bfloat16"), "stored type")
    compute_dtype: str = key("float16", choice("float32", "float16", "bfloat16"), "matrix product type")
    lora_a_init: str = key("normal", as_text, "initial values of the inner matrix")
    lora_b_init: str = key("zero", as_text, "initial values of the outer matrix")
    pre_seq_len: int | None = key(
        None, optional(integer_at_least(1)), "length of the prefix; that of model_config without it"
    )
    prefix_projection: bool = key(False, as_bool, "make the prefix by two linear layers around tanh")
    projection_dim: int | None = key(
        None, optional(integer_at_least(1)), "width between them; hidden_size without it"
    )
    dropout_prob: float = key(0.0, probability, "dropout on the prefix")


@frozen(kw_only=True)
class ArchConfig:
    """The network's class."""

    type: str = key(
        "ChatGLM2ForConditionalGeneration", choice("ChatGLM2ForConditionalGeneration"), "network class"
    )


@frozen(kw_only=True)
class ModelSection:
    """``model``: the network, and the adapter added to it.

    ``given`` holds the fields of ``model_config`` that the file names itself, for :meth:`onto`.
    """

    model_config: ModelConfig = field(factory=ModelConfig)
    pet_config: PetConfig | None = None
    arch: ArchConfig = field(factory=ArchConfig)
    given: Mapping[str, Any] = field(factory=dict)

    def onto(self, config: ModelConfig) -> ModelConfig:
        """Return another model's configuration with the fields that this section names replaced."""
        return config.evolve(**self.given)


@frozen(kw_only=True)
class _Beside:
    """Keys of ``model_config`` that are not the network's."""

    type: str = key("ChatGLM2Config", choice("ChatGLM2Config"), "configuration class")
    pet_config: PetConfig | None = optional_section(PetConfig, "adapters to train instead of the network")


def _read_network(node: Node, where: str, reading: Reading) -> ModelSection:
    if not isinstance(node.value, dict):
        read_record(_Beside, node, where, reading)
        return ModelSection()
    beside = {name: child for name, child in node.value.items() if name in ("type", "pet_config")}
    pet_config = read_record(_Beside, Node(beside, node.origin, node.key_origins), where, reading).pet_config
    values = _network_values(node, where, reading)
    extras = values.pop("extras", None) or {}
    if not isinstance(extras, Mapping):
        origin = node.value["extras"].origin
        expected = "a mapping of keys to values"
        reading.faults.add("invalid value", origin=origin, field=f"{where}.extras", expected=expected)
        extras = {}
    try:
        config = ModelConfig.from_mapping({**extras, **values})
    except ConfigError as error:
        _note_model_faults(error, node, where, reading)
        return ModelSection()
    given = {name: getattr(config, name) for name in values if name in _MODEL_KEYS}
    return ModelSection(model_config=config, pet_config=pet_config, given=given)


def _network_values(node: Node, where: str, reading: Reading) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, child in node.value.items():
        if name in ("type", "pet_config"):
            continue
        reading.origins[f"{where}.{name}"] = child.origin
        if name in _MODEL_KEYS or name in FOREIGN_KEYS:
            values[name] = plain(child)
        else:
            known = (*_MODEL_KEYS, "type", "pet_config")
            note_unknown_key(node, name, f"{where}.{name}", known, reading)
    return values


def _note_model_faults(error: ConfigError, node: Node, where: str, reading: Reading) -> None:
    faults = error.faults if isinstance(error, MultipleFaultsError) else (error,)
    for fault in faults:
        child = node.value.get(fault.field)
        reading.faults.add(
            "invalid value",
            origin=node.origin if child is None else child.origin,
            field=f"{where}.{fault.field}",
            expected=fault.expected,
            found=fault.found,
            hint=fault.hint,
        )


@frozen(kw_only=True)
class _ModelKeys:
    model_config: ModelSection = special(
        Factory(ModelSection), _read_network, "fields of the network, and pet_config"
    )
    arch: ArchConfig = section(ArchConfig, "class of the network")


def read_model(node: Node, where: str, reading: Reading) -> ModelSection:
    """Read the section ``model``."""
    keys = read_record(_ModelKeys, node, where, reading)
    return evolve(keys.model_config, arch=keys.arch)


@frozen(kw_only=True)
class TrainerConfig:
    """The task."""

    type: str = key("CausalLanguageModelingTrainer", choice("CausalLanguageModelingTrainer"), "trainer class")
    model_name: str | None = key(
        None, optional(as_text), "name of the model, for its tokenizer where none is given"
    )


@frozen(kw_only=True)
class TokenizerConfig:
    """The tokenizer; the names of its control tokens are fixed by the format and only repeated here."""

    type: str = key("ChatGLM3Tokenizer", choice("ChatGLM3Tokenizer"), "tokenizer class")
    vocab_file: str | None = key(None, optional(as_text), "tokenizer.model; without it, the model's own")
    bos_token: str = key("<sop>", as_text, "begin of sequence")
    eos_token: str = key("<eop>", as_text, "end of piece")
    end_token: str = key("</s>", as_text, "end of sequence")
    mask_token: str = key("[MASK]", as_text, "mask")
    gmask_token: str = key("[gMASK]", as_text, "mask of a whole text, the first token of every sequence")
    pad_token: str = key("<pad>", as_text, "padding")
    unk_token: str = key("<unk>", as_text, "unknown piece")


@frozen(kw_only=True)
class ProcessorConfig:
    """From text to ids."""

    type: str = key("GLMProcessor", choice("GLMProcessor"), "processor class")
    return_tensors: str = key("ms", choice("ms", "np"), "kind of arrays returned")
    tokenizer: TokenizerConfig = section(TokenizerConfig, "tokenizer of inference")

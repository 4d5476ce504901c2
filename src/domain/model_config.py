"""The shape and numerics of a ChatGLM3 network.

Field names are those of Hugging Face's ``config.json`` and of MindFormers' ``model_config``; the defaults
are ChatGLM3-6B's.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from attrs import Attribute, evolve, field, fields, frozen

from glm3.domain.coercion import as_bool, as_float, as_int, as_text, optional
from glm3.domain.errors import ConfigError, raise_faults
from glm3.domain.tensors import DType

__all__ = ["ModelConfig"]


def _as_token_ids(value: object) -> tuple[int, ...]:
    return tuple(as_int(item) for item in value) if isinstance(value, (list, tuple)) else (as_int(value),)


def _as_dtype(value: object) -> DType:
    try:
        dtype = DType(as_text(value).removeprefix("torch."))
    except ValueError:
        raise ValueError("float32, float16 or bfloat16") from None
    if not dtype.is_floating:
        raise ValueError("float32, float16 or bfloat16")
    return dtype


def _field(default: Any, convert: Callable[[object], Any], *, hf: bool = True) -> Any:
    """``hf`` fields belong into a Hugging Face config.json; the others are MindFormers' alone."""
    return field(default=default, converter=convert, metadata={"hf": hf})


@frozen(kw_only=True)
class ModelConfig:
    """A validated, immutable network configuration; ``evolve`` it to change a field.

    ``extras`` keeps keys this project does not use, so that writing a config back loses nothing.

    Raises:
        ConfigError: a value is of the wrong type or breaks a rule.
    """

    num_layers: int = _field(28, as_int)
    padded_vocab_size: int = _field(65024, as_int)
    hidden_size: int = _field(4096, as_int)
    ffn_hidden_size: int = _field(13696, as_int)
    kv_channels: int = _field(128, as_int)
    num_attention_heads: int = _field(32, as_int)
    seq_length: int = _field(8192, as_int)
    hidden_dropout: float = _field(0.0, as_float)
    attention_dropout: float = _field(0.0, as_float)
    layernorm_epsilon: float = _field(1e-5, as_float)
    rmsnorm: bool = _field(True, as_bool)
    apply_residual_connection_post_layernorm: bool = _field(False, as_bool)
    post_layer_norm: bool = _field(True, as_bool)
    add_bias_linear: bool = _field(False, as_bool)
    add_qkv_bias: bool = _field(True, as_bool)
    bias_dropout_fusion: bool = _field(True, as_bool)
    multi_query_attention: bool = _field(True, as_bool)
    multi_query_group_num: int = _field(2, as_int)
    apply_query_key_layer_scaling: bool = _field(True, as_bool)
    attention_softmax_in_fp32: bool = _field(True, as_bool)
    fp32_residual_connection: bool = _field(False, as_bool)
    quantization_bit: int = _field(0, as_int)
    pre_seq_len: int | None = _field(None, optional(as_int))
    prefix_projection: bool = _field(False, as_bool)
    rope_ratio: float = _field(1.0, as_float)
    original_rope: bool = _field(True, as_bool)
    tie_word_embeddings: bool = _field(False, as_bool)
    use_cache: bool = _field(True, as_bool)
    eos_token_id: tuple[int, ...] = _field((2,), _as_token_ids)
    pad_token_id: int = _field(0, as_int)
    bos_token_id: int | None = _field(None, optional(as_int))
    gmask_token_id: int | None = _field(None, optional(as_int))
    # MindFormers' own
    batch_size: int = _field(1, as_int, hf=False)
    param_init_type: DType = _field(DType.FLOAT16, _as_dtype, hf=False)
    compute_dtype: DType = _field(DType.FLOAT16, _as_dtype, hf=False)
    layernorm_compute_type: DType = _field(DType.FLOAT32, _as_dtype, hf=False)
    use_past: bool = _field(False, as_bool, hf=False)
    use_flash_attention: bool = _field(False, as_bool, hf=False)
    use_prompt_flash_attention: bool = _field(False, as_bool, hf=False)
    use_incre_flash_attention: bool = _field(False, as_bool, hf=False)
    block_size: int = _field(16, as_int, hf=False)
    num_blocks: int = _field(128, as_int, hf=False)
    is_dynamic: bool = _field(False, as_bool, hf=False)
    checkpoint_name_or_path: str | None = _field(None, optional(as_text), hf=False)
    repetition_penalty: float = _field(1.0, as_float, hf=False)
    max_decode_length: int | None = _field(None, optional(as_int), hf=False)
    max_length: int | None = _field(None, optional(as_int), hf=False)
    top_k: int = _field(0, as_int, hf=False)
    top_p: float = _field(1.0, as_float, hf=False)
    temperature: float = _field(1.0, as_float, hf=False)
    do_sample: bool = _field(False, as_bool, hf=False)
    extras: Mapping[str, Any] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        faults = self._broken_rules()
        raise_faults(f"{len(faults)} faults in the model configuration", faults)

    def _broken_rules(self) -> list[ConfigError]:
        faults: list[ConfigError] = []

        def require(met: bool, name: str, expected: str, hint: str | None = None) -> None:
            if not met:
                faults.append(
                    ConfigError(
                        "invalid value", field=name, expected=expected, found=getattr(self, name), hint=hint
                    )
                )

        for name in [
            "num_layers",
            "padded_vocab_size",
            "hidden_size",
            "ffn_hidden_size",
            "kv_channels",
            "num_attention_heads",
            "seq_length",
            "multi_query_group_num",
            "batch_size",
            "block_size",
            "num_blocks",
        ]:
            require(getattr(self, name) > 0, name, "a positive number")
        require(self.kv_channels % 4 == 0, "kv_channels", "a multiple of 4 (half of it is rotated in pairs)")
        if self.multi_query_attention and self.multi_query_group_num > 0:
            require(
                self.num_attention_heads % self.multi_query_group_num == 0,
                "num_attention_heads",
                f"a multiple of multi_query_group_num = {self.multi_query_group_num}",
            )
        for name in ("hidden_dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, name, "a probability below 1")
        require(self.layernorm_epsilon > 0, "layernorm_epsilon", "a positive number")
        require(self.rope_ratio > 0, "rope_ratio", "a positive number")
        require(self.rmsnorm, "rmsnorm", "true", "every published ChatGLM3 checkpoint uses RMSNorm")
        require(
            not self.tie_word_embeddings,
            "tie_word_embeddings",
            "false",
            "ChatGLM3 has a separate output_layer",
        )
        require(self.quantization_bit in (0, 4, 8), "quantization_bit", "0, 4 or 8")
        require(self.pre_seq_len is None or self.pre_seq_len > 0, "pre_seq_len", "null or a positive number")
        return faults

    @property
    def num_kv_heads(self) -> int:
        """Heads of key and value; each serves ``num_attention_heads // num_kv_heads`` query heads."""
        return self.multi_query_group_num if self.multi_query_attention else self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """Leading channels of every head that are rotated: half of them."""
        return self.kv_channels // 2

    @property
    def rope_base(self) -> float:
        """Base of the rotary frequencies; the 32k model multiplies it (by 50) and leaves positions alone."""
        return 10000.0 * self.rope_ratio

    @property
    def attention_size(self) -> int:
        """Width of the joined query heads."""
        return self.num_attention_heads * self.kv_channels

    @property
    def qkv_size(self) -> int:
        """Rows of the joined query, key and value projection, in this order."""
        return self.attention_size + 2 * self.num_kv_heads * self.kv_channels

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], path: str | Path | None = None) -> ModelConfig:
        """Build a configuration from a parsed ``config.json`` or ``model_config`` section.

        ``torch_dtype`` gives ``param_init_type`` where that is absent; unknown keys go to ``extras``.

        Raises:
            ConfigError: with every value that cannot be read, each with ``path`` and field.
        """
        known = {a.name: a for a in fields(cls) if a.name != "extras"}
        values = dict(values)
        if "torch_dtype" in values:
            values.setdefault("param_init_type", values["torch_dtype"])
        faults: list[ConfigError] = []
        accepted: dict[str, Any] = {}
        for name in known.keys() & values.keys():
            try:
                accepted[name] = _convert(known[name], values[name])
            except ValueError as error:
                faults.append(
                    ConfigError(
                        "wrong type", path=path, field=name, expected=error.args[0], found=repr(values[name])
                    )
                )
        raise_faults(f"{len(faults)} faults in the model configuration", faults)
        extras = {name: value for name, value in values.items() if name not in known}
        try:
            return cls(**accepted, extras=extras)
        except ConfigError as error:
            error.path = None if path is None else Path(path)
            raise

    def evolve(self, **changes: Any) -> ModelConfig:
        """Return a copy with fields replaced, validated again.

        Raises:
            ConfigError: a field is unknown (the nearest name is suggested) or its new value invalid.
        """
        names = [a.name for a in fields(type(self))]
        for name in changes:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                raise ConfigError(
                    "no such field of the model configuration",
                    field=name,
                    hint=f"did you mean {near[0]}?" if near else None,
                )
        for name, value in changes.items():
            if name != "extras":
                try:
                    changes[name] = _convert(getattr(fields(type(self)), name), value)
                except ValueError as error:
                    raise ConfigError(
                        "wrong type", field=name, expected=error.args[0], found=repr(value)
                    ) from None
        return evolve(self, **changes)

    def to_hugging_face(self) -> dict[str, Any]:
        """Return the content of a ``config.json`` that Hugging Face code and this project both read."""
        values: dict[str, Any] = {"model_type": "chatglm", "architectures": ["ChatGLMModel"], **self.extras}
        for attribute in fields(type(self)):
            if attribute.metadata.get("hf"):
                values[attribute.name] = getattr(self, attribute.name)
        eos = self.eos_token_id
        values["eos_token_id"] = eos[0] if len(eos) == 1 else list(eos)
        values["torch_dtype"] = self.param_init_type.value
        return {name: value for name, value in values.items() if value is not None}


def _convert(attribute: Attribute[Any], value: object) -> Any:
    convert = cast(Callable[[object], Any], attribute.converter)
    return convert(value)

"""What llama.cpp calls the parts of a ChatGLM3 network, and which networks it can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glm3.domain.errors import ConfigError, raise_faults
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import EMBEDDING, FINAL_NORM, OUTPUT_LAYER
from glm3.domain.special_tokens import BOS_ID, EOS_ID, UNK_ID, SpecialTokens

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["ARCHITECTURE", "CHAT_TEMPLATE", "add_network", "gguf_name", "require_expressible"]

ARCHITECTURE = "chatglm"

CHAT_TEMPLATE = (
    "[gMASK]sop"
    "{% for message in messages %}<|{{ message['role'] }}|>\n {{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""The chat prompt of :mod:`glm3.domain.prompt` for messages without metadata."""

_ROPE_BASE = 10000.0

_OUTSIDE_LAYERS = {
    EMBEDDING: "token_embd.weight",
    FINAL_NORM: "output_norm.weight",
    OUTPUT_LAYER: "output.weight",
}

_IN_LAYERS = {
    "input_layernorm": "attn_norm",
    "self_attention.query_key_value": "attn_qkv",
    "self_attention.dense": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.dense_h_to_4h": "ffn_up",  # both halves of SwiGLU's input, in our order
    "mlp.dense_4h_to_h": "ffn_down",
}


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a parameter that has the Hugging Face name ``name``."""
    if name in _OUTSIDE_LAYERS:
        return _OUTSIDE_LAYERS[name]
    layer, part = name.removeprefix("transformer.encoder.layers.").split(".", 1)
    module, kind = part.rsplit(".", 1)
    return f"blk.{layer}.{_IN_LAYERS[module]}.{kind}"


def require_expressible(config: ModelConfig) -> None:
    """Refuse a network that llama.cpp would run as another one.

    Raises:
        ConfigError: a setting is not the one that its ChatGLM graph is built for.
    """
    wanted = {
        "rmsnorm": True,
        "apply_residual_connection_post_layernorm": False,
        "post_layer_norm": True,
        "add_bias_linear": False,
        "original_rope": True,
        "tie_word_embeddings": False,
    }
    raise_faults(
        "llama.cpp does not know this network",
        [
            ConfigError("llama.cpp's ChatGLM has it otherwise", field=name, expected=value, found=found)
            for name, value in wanted.items()
            if (found := getattr(config, name)) != value
        ],
    )


def add_network(writer: GGUFWriter, config: ModelConfig, special: SpecialTokens) -> None:
    """Write down the network's shape, and which ids begin and end what."""
    writer.add_context_length(config.seq_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.ffn_hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.kv_channels)
    writer.add_value_length(config.kv_channels)
    writer.add_layer_norm_rms_eps(config.layernorm_epsilon)
    writer.add_rope_dimension_count(config.kv_channels // 2)
    writer.add_rope_freq_base(_ROPE_BASE * config.rope_ratio)
    writer.add_vocab_size(config.padded_vocab_size)
    writer.add_bos_token_id(BOS_ID)
    writer.add_eos_token_id(EOS_ID)
    writer.add_unk_token_id(UNK_ID)
    writer.add_eot_token_id(special.user)
    writer.add_eom_token_id(special.observation)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)

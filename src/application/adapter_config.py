"""The content of ``adapter_config.json``: a low-rank adapter's as PEFT has it, a prefix's in ChatGLM's words.

Beside the method's keys it holds ``base_sha256`` and ``base_bytes`` of the weights it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm3.application.base_identity import BaseIdentity
from glm3.domain.errors import ConfigError
from glm3.domain.training.adapters import AdapterConfig
from glm3.domain.training.lora import LINEAR_MODULES, LoRAConfig
from glm3.domain.training.prefix import PrefixConfig

__all__ = ["adapter_config_from", "adapter_config_of"]

_LORA, _PREFIX = "LORA", "PTUNING2"


def adapter_config_of(config: AdapterConfig, base: BaseIdentity) -> dict[str, Any]:
    """Return what is written."""
    prefix = isinstance(config, PrefixConfig)
    common = {
        "peft_type": _PREFIX if prefix else _LORA,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "base_sha256": base.sha256,
        "base_bytes": base.nbytes,
    }
    if isinstance(config, PrefixConfig):
        return common | {
            "pre_seq_len": config.length,
            "prefix_projection": config.projection,
            "projection_dim": config.projection_size,
            "dropout_prob": config.dropout,
        }
    last_names = [module.rpartition(".")[2] for module in LINEAR_MODULES]
    return common | {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": [name for name in last_names if config.targets(name)],
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def adapter_config_from(values: Mapping[str, Any], path: Path) -> tuple[AdapterConfig, BaseIdentity]:
    """Return what was read from ``path``.

    Raises:
        ConfigError: the configuration is damaged, or of another method.
    """
    try:
        method = values.get("peft_type", _LORA)
        if method not in (_LORA, _PREFIX):
            raise ConfigError(
                "no adapter of a known method",
                path=path,
                field="peft_type",
                expected=f"{_LORA} or {_PREFIX}",
                found=method,
            )
        base = BaseIdentity(
            name=values.get("base_model_name_or_path") or None,
            sha256=values.get("base_sha256"),
            nbytes=values.get("base_bytes"),
        )
        return (_prefix_from(values) if method == _PREFIX else _lora_from(values)), base
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"not an adapter's configuration: {error!r}", path=path) from None


def _lora_from(values: Mapping[str, Any]) -> LoRAConfig:
    return LoRAConfig(
        rank=int(values["r"]),
        alpha=float(values["lora_alpha"]),
        dropout=float(values.get("lora_dropout") or 0.0),
        target_modules=values["target_modules"],
    )


def _prefix_from(values: Mapping[str, Any]) -> PrefixConfig:
    width = values.get("projection_dim")
    return PrefixConfig(
        length=int(values["pre_seq_len"]),
        projection=bool(values.get("prefix_projection")),
        projection_size=None if width is None else int(width),
        dropout=float(values.get("dropout_prob") or 0.0),
    )

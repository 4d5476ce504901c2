"""Write model folders of rounded weights: ours, and as ChatGLM's own code saves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from glm3.adapters.hub.catalog import PublishedModels
from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.memory.numpy_quantizer import NumpyQuantizer
from glm3.adapters.safetensors.store import SafetensorsStore
from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.application.model_source import ModelSources
from glm3.application.quantization_request import Calibration, QuantizationRequest
from glm3.application.quantize_model import QuantizationResult, quantize_model
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.quantizer import Quantizer
from glm3.domain.quantization import QuantScheme
from glm3.domain.tensors import DType, TensorSpec
from support.models import tiny_config

STORE = SafetensorsStore(max_shard_bytes=200_000)


class NoDownloads:
    """A downloader that must not be asked."""

    def fetch(self, url: str, target: Path, **_: object) -> Path:
        raise AssertionError(url)


def sources(folder: Path) -> ModelSources:
    """Return the models of a machine that has downloaded none."""
    catalog = PublishedModels(folder / "resources", folder / "downloads", "http://127.0.0.1:9")
    return ModelSources(catalog, NoDownloads(), YamlRunConfigReader())


def write_plain_folder(
    folder: Path, parameters: dict[str, np.ndarray], config: ModelConfig, **changes: object
) -> Path:
    """Write weights and config.json; ``changes`` are further or other keys of it."""
    specs = [TensorSpec(name, DType(array.dtype.name), array.shape) for name, array in parameters.items()]
    with STORE.create(folder, specs) as writer:
        for name, array in parameters.items():
            writer.write(name, array)
    values = {**config.to_hugging_face(), **changes}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def small_config() -> ModelConfig:
    """Return a network whose matrices are whole groups of 64."""
    return tiny_config(hidden_size=64, ffn_hidden_size=128, kv_channels=16, padded_vocab_size=200)


def small_parameters() -> dict[str, np.ndarray]:
    return NumpyModel.random(small_config(), seed=3, scale=0.3).parameters()


def write_small_folder(folder: Path) -> Path:
    """Write the small network's weights in float32."""
    return write_plain_folder(folder, small_parameters(), small_config())


def quantize_folder(
    source: Path,
    target: Path,
    scheme: str = "int4",
    quantizer: Quantizer | None = None,
    calibration: Calibration | None = None,
    **options: object,
) -> QuantizationResult:
    """Round a folder of weights into another."""
    request = QuantizationRequest(
        source=sources(source.parent).resolve(source),
        target=target,
        scheme=QuantScheme.parse(scheme),
        calibration=calibration,
        **options,
    )
    return quantize_model(request, [STORE], quantizer or NumpyQuantizer())


def write_official_folder(folder: Path, bits: int) -> dict[str, np.ndarray]:
    """Round the blocks of the small network by ChatGLM's rule and save them so; return what they stand for.

    Four bits: two neighbours in a byte, the first in its upper half, both in two's complement.
    """
    parameters = small_parameters()
    stored: dict[str, np.ndarray] = {}
    meant: dict[str, np.ndarray] = {}
    for key, array in parameters.items():
        if array.ndim == 1 or ".layers." not in key:
            stored[key] = array.astype(np.float16)
            meant[key] = stored[key].astype(np.float32)
            continue
        scale = (np.abs(array).max(-1) / (2 ** (bits - 1) - 1)).astype(np.float16)
        levels = np.round(array / scale[:, None].astype(np.float32)).astype(np.int8)
        meant[key] = scale[:, None].astype(np.float32) * levels
        if bits == 4:
            levels = np.clip(levels, -8, 7)
            meant[key] = scale[:, None].astype(np.float32) * levels
            levels = ((levels[:, 0::2] << 4) | (levels[:, 1::2] & 15)).astype(np.int8)
        stored[key], stored[key + "_scale"] = levels, scale
    write_plain_folder(folder, stored, small_config(), quantization_bit=bits)
    return meant

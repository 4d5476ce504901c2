"""Round the matrices of a model so that its scores of a text change least, a block in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm3.domain.errors import InvalidInputError, MissingFileError, StorageError, UsageError
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import EMBEDDING, FINAL_NORM, OUTPUT_LAYER, layer_prefix
from glm3.domain.ports.calibrator import Calibrator
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.ports.quantizer import Quantizer
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.quantization import PackedWeight, dequantize
from glm3.domain.quantization.compensated import feedback_factor, round_compensated
from glm3.domain.quantization.stored import MatrixForm
from glm3.domain.tensors import DType, TensorSpec, to_float32

__all__ = ["CalibratedWeights", "calibration_ids"]

_MAX_TOKENS = 8192
_LENGTH = 256
_ROWS = 4096  # channels rounded at once: bounds the memory for the output head

FloatArray = NDArray[np.float32]


def calibration_ids(path: Path, tokenizer: Tokenizer, config: ModelConfig) -> list[list[int]]:
    """Return a text's ids in sequences of at most 256 behind ``[gMASK] sop``, 8192 in all.

    Raises:
        MissingFileError, StorageError: it cannot be read.
        UsageError: it is no UTF-8 text, or too short to say anything.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError("no such file", path=path) from None
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror}", path=path) from error
    except UnicodeDecodeError:
        raise UsageError("is no UTF-8 text", path=path) from None
    start = list(tokenizer.special_tokens.prefix)
    room = min(_LENGTH, config.seq_length) - len(start)
    ids = [token for line in text.splitlines(keepends=True) for token in tokenizer.encode(line)]
    ids = ids[:_MAX_TOKENS]
    if len(ids) < room:
        raise UsageError(
            "too short to calibrate with",
            path=path,
            expected=f"{room} tokens, better thousands",
            found=f"{len(ids)} tokens",
        )
    return [start + ids[at : at + room] for at in range(0, len(ids), room)]


class CalibratedWeights:
    """Rounds matrices in the network's order.

    Each block sees the text as the rounded ones before it leave it.
    """

    def __init__(
        self,
        config: ModelConfig,
        reader: CheckpointReader,
        stored: Mapping[str, TensorSpec],
        forms: Mapping[str, MatrixForm],
        calibrator: Calibrator,
        quantizer: Quantizer,
        sequences: Sequence[Sequence[int]],
    ) -> None:
        self._config = config
        self._reader = reader
        self._stored = stored
        self._forms = forms
        self._calibrator = calibrator
        self._quantizer = quantizer
        self._states = [self._embedded(ids) for ids in sequences]
        self._ready: dict[str, PackedWeight] = {}
        self._next_layer = 0

    def take(self, name: str) -> PackedWeight | None:
        """Return a matrix rounded, or None for one whose inputs are no numbers: the embedding."""
        if name == EMBEDDING:
            return None
        if name == OUTPUT_LAYER:
            return self._head()
        if name not in self._ready:
            self._round_block(self._next_layer)
            self._next_layer += 1
        return self._ready.pop(name)

    def _read(self, name: str, rows: slice | None = None) -> FloatArray:
        spec = self._stored[name]
        wide = to_float32(self._reader.read(spec.name, rows), spec.dtype)
        if not np.isfinite(wide).all():
            raise InvalidInputError("holds NaN or an infinity", field=name, expected="finite weights")
        return wide

    def _embedded(self, ids: Sequence[int]) -> FloatArray:
        rows = np.concatenate([self._read(EMBEDDING, slice(token, token + 1)) for token in ids])
        form = self._forms.get(EMBEDDING)
        if form is None:
            return rows
        return dequantize(self._quantizer.quantize(rows, DType.FLOAT32, form.scheme, EMBEDDING))

    def _round_block(self, layer: int) -> None:
        prefix, first = layer_prefix(layer), layer_prefix(0)
        names = {name: first + name[len(prefix) :] for name in self._stored if name.startswith(prefix)}
        parameters = {own: self._read(name) for name, own in names.items()}
        seen = self._calibrator.run_block(self._config, parameters, self._states, with_moments=True)
        moments = dict(seen.moments)
        del seen
        for name, own in names.items():
            if name in self._forms:
                factor = feedback_factor(moments.pop(own))
                rounded = _rounded(parameters[own], factor, self._forms[name], name)
                self._ready[name] = rounded
                parameters[own] = dequantize(rounded)
        self._states = self._calibrator.run_block(
            self._config, parameters, self._states, with_moments=False
        ).states

    def _head(self) -> PackedWeight:
        hidden = np.concatenate(self._states)
        if self._config.post_layer_norm:
            scale = np.sqrt(np.mean(hidden**2, axis=-1, keepdims=True) + self._config.layernorm_epsilon)
            hidden = hidden / scale * self._read(FINAL_NORM)
        factor = feedback_factor(hidden.T @ hidden)
        return _rounded(self._read(OUTPUT_LAYER), factor, self._forms[OUTPUT_LAYER], OUTPUT_LAYER)


def _rounded(weight: FloatArray, factor: FloatArray, form: MatrixForm, name: str) -> PackedWeight:
    """Round a matrix some channels at a time."""
    parts = []
    for start in range(0, len(weight), _ROWS):
        try:
            parts.append(round_compensated(weight[start : start + _ROWS], factor, form.scheme))
        except InvalidInputError as error:
            error.field = f"{name} from row {start}, {error.field}"
            raise
    zeros = [part.zeros for part in parts if part.zeros is not None]
    return PackedWeight(
        form.scheme,
        form.shape,
        np.concatenate([part.data for part in parts]),
        np.concatenate([part.scales for part in parts]),
        np.concatenate(zeros) if zeros else None,
    )

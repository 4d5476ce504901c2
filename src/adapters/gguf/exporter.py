"""Write a model as one GGUF file that llama.cpp runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glm3.adapters.gguf.network import ARCHITECTURE, add_network, gguf_name, require_expressible
from glm3.domain.errors import BackendError, InvalidInputError
from glm3.domain.ports.model_exporter import ExportableModel
from glm3.domain.positional_io import storage_errors
from glm3.domain.recast import recast
from glm3.domain.special_tokens import SPECIAL_TOKEN_NAMES, SpecialTokens
from glm3.domain.tensors import Array, DType, TensorSpec, row_slabs, to_float32
from glm3.domain.vocabulary import Piece, PieceKind

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

__all__ = ["GgufExporter"]

_BLOCK = 32  # weights that share a scale in q8_0 and q4_0
_BLOCK_BYTES = {"q8_0": 34, "q4_0": 18}
_DTYPES = {"f32": DType.FLOAT32, "f16": DType.FLOAT16}
_HEAD = "output.weight"


class GgufExporter:
    """See :class:`glm3.domain.ports.model_exporter.ModelExporter`.

    ``f16`` keeps weights as they are; ``q8_0`` and ``q4_0`` round them in blocks of 32. Vectors stay
    float32. The output head is q8_0 in a q4_0 file, and a matrix whose rows are no whole blocks is f16.
    """

    def __init__(self) -> None:
        try:
            import gguf
        except ImportError as error:
            raise BackendError(
                "the package gguf is not installed", hint="pip install 'glm3[gguf]'"
            ) from error
        self._gguf = gguf

    @property
    def suffix(self) -> str:
        return ".gguf"

    @property
    def encodings(self) -> Sequence[str]:
        return "f16", "q8_0", "q4_0"

    def stored(self, spec: TensorSpec, encoding: str) -> tuple[str, int]:
        """Return the encoding that a tensor gets when ``encoding`` was asked for, and its bytes."""
        if len(spec.shape) == 1:
            chosen = "f32"
        elif encoding == "f16" or spec.shape[-1] % _BLOCK:
            chosen = "f16"
        else:
            chosen = "q8_0" if gguf_name(spec.name) == _HEAD else encoding
        if chosen in _BLOCK_BYTES:
            return chosen, spec.size // _BLOCK * _BLOCK_BYTES[chosen]
        return chosen, spec.size * _DTYPES[chosen].itemsize

    def write(
        self, path: Path, model: ExportableModel, encoding: str, done: Callable[[str, int], None]
    ) -> None:
        """Write ``path`` and sync it; in memory is one tensor at a time.

        Raises:
            ConfigError: llama.cpp does not know the network.
            InvalidInputError: a weight is not finite, or too large for its encoding.
            StorageError: the file system refused.
        """
        require_expressible(model.config)
        writer = self._gguf.GGUFWriter(path, ARCHITECTURE)
        writer.add_name(model.name)
        writer.add_file_type(self._file_type(encoding))
        writer.add_quantization_version(self._gguf.GGML_QUANT_VERSION)
        add_network(writer, model.config, SpecialTokens(len(model.pieces) - len(SPECIAL_TOKEN_NAMES)))
        self._add_vocabulary(writer, model.pieces, model.config.padded_vocab_size)
        for spec in model.tensors:
            chosen, nbytes = self.stored(spec, encoding)
            writer.add_tensor_info(
                gguf_name(spec.name), spec.shape, np.dtype(np.float32), nbytes, self._type(chosen)
            )
        with storage_errors(path), _closed(writer):
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for spec in model.tensors:
                writer.write_tensor_data(self._encoded(spec, model, encoding, done))
            writer.flush()
        with storage_errors(path), path.open("rb") as file:
            os.fsync(file.fileno())

    def _encoded(
        self, spec: TensorSpec, model: ExportableModel, encoding: str, done: Callable[[str, int], None]
    ) -> Array:
        """Return a tensor as it is stored, made slab by slab."""
        chosen, nbytes = self.stored(spec, encoding)
        width = prod(spec.shape[1:])
        stored = np.empty(nbytes, np.uint8)
        filled = 0
        for rows in row_slabs(spec):
            part = np.ascontiguousarray(self._encode(spec, model.read(spec, rows), chosen))
            stored[filled : filled + part.nbytes] = part.view(np.uint8).reshape(-1)
            filled += part.nbytes
            count = spec.shape[0] if rows is None else rows.stop - rows.start
            done(spec.name, count * width * spec.dtype.itemsize)
        return stored

    def _encode(self, spec: TensorSpec, array: Array, chosen: str) -> Array:
        if not np.isfinite(wide := to_float32(array, spec.dtype)).all():
            raise InvalidInputError("holds NaN or an infinity", field=spec.name, expected="finite weights")
        if chosen in _DTYPES:
            return recast(array, spec.dtype, _DTYPES[chosen], spec.name)
        rounded: Array = self._gguf.quants.quantize(wide, self._type(chosen))
        return rounded

    def _type(self, encoding: str) -> GGMLQuantizationType:
        return self._gguf.GGMLQuantizationType[encoding.upper()]

    def _file_type(self, encoding: str) -> int:
        return int(self._gguf.LlamaFileType[f"MOSTLY_{encoding.upper()}"])

    def _add_vocabulary(self, writer: GGUFWriter, pieces: Sequence[Piece], size: int) -> None:
        """Write the pieces, and placeholders up to the network's ``size``, which is padded."""
        types = self._gguf.TokenType
        kinds = {kind: types[kind.name] for kind in PieceKind}
        padding = [Piece(f"[PAD{token}]", PieceKind.UNUSED) for token in range(len(pieces), size)]
        everything = [*pieces, *padding]
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([piece.text.encode() for piece in everything])
        writer.add_token_scores([piece.score for piece in everything])
        writer.add_token_types([kinds[piece.kind] for piece in everything])


@contextmanager
def _closed(writer: GGUFWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.close()

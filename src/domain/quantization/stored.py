"""How packed weights lie in a file: the names of their arrays, and the metadata that says what they are.

A matrix NAME is stored as ``NAME.levels``, ``NAME.scales`` and, with a zero point, ``NAME.zeros``.
Vectors lie beside them under their own names. The metadata ``glm3.packed`` is a JSON object: ``layout`` is
its version, ``scheme`` the one that was asked for, ``weights`` maps each matrix to ``[scheme, out, in]``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from attrs import frozen

from glm3.domain.errors import CheckpointError, ConfigError
from glm3.domain.quantization.layout import LAYOUT_VERSION, packed_shapes
from glm3.domain.quantization.packed import PackedWeight
from glm3.domain.quantization.scheme import QuantScheme
from glm3.domain.tensors import Array, DType, TensorSpec

__all__ = ["PACKED_KEY", "MatrixForm", "PackedHeader", "packed_arrays", "packed_specs"]

PACKED_KEY = "glm3.packed"

_LEVELS, _SCALES, _ZEROS = ".levels", ".scales", ".zeros"


@frozen
class MatrixForm:
    """What a matrix ``shape (out, in)`` is rounded by."""

    scheme: QuantScheme
    shape: tuple[int, int]


@frozen
class PackedHeader:
    """What a file of packed weights holds."""

    scheme: QuantScheme
    weights: Mapping[str, MatrixForm]

    def to_metadata(self) -> dict[str, str]:
        values = {
            "layout": LAYOUT_VERSION,
            "scheme": self.scheme.name,
            "weights": {name: [form.scheme.name, *form.shape] for name, form in self.weights.items()},
        }
        return {PACKED_KEY: json.dumps(values, separators=(",", ":"))}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> PackedHeader | None:
        """Read the metadata of a file; None where it says nothing of packed weights.

        Raises:
            CheckpointError: it is damaged, or of another version of the layout.
        """
        if PACKED_KEY not in metadata:
            return None
        try:
            values = json.loads(metadata[PACKED_KEY])
            layout = values["layout"]
            if layout == LAYOUT_VERSION:
                weights = {name: _form(*form) for name, form in values["weights"].items()}
                return cls(QuantScheme.parse(values["scheme"]), weights)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
            raise CheckpointError(
                f"does not say what the weights are rounded by: {error}",
                field=PACKED_KEY,
                hint="make it again: glm3 quantize",
            ) from None
        raise CheckpointError(
            "the weights are packed in another way than this version reads",
            field=f"{PACKED_KEY}.layout",
            expected=LAYOUT_VERSION,
            found=repr(layout),
            hint="make the folder again from the original weights: glm3 quantize",
        )


def packed_specs(name: str, form: MatrixForm) -> Iterator[TensorSpec]:
    """Yield the tensors that stand for a matrix."""
    shapes = packed_shapes(form.scheme, *form.shape)
    yield TensorSpec(name + _LEVELS, DType.UINT8, shapes.data)
    yield TensorSpec(name + _SCALES, DType(form.scheme.scale_dtype.name), shapes.scales)
    if shapes.zeros is not None:
        yield TensorSpec(name + _ZEROS, DType.UINT8, shapes.zeros)


def packed_arrays(name: str, weight: PackedWeight) -> dict[str, Array]:
    """Return the numbers of :func:`packed_specs`, by name."""
    arrays: dict[str, Array] = {name + _LEVELS: weight.data, name + _SCALES: weight.scales}
    if weight.zeros is not None:
        arrays[name + _ZEROS] = weight.zeros
    return arrays


def _form(scheme: object, out_features: object, in_features: object) -> MatrixForm:
    if not isinstance(scheme, str):
        raise TypeError("a scheme is a name")
    for size in (out_features, in_features):
        if type(size) is not int or size <= 0:
            raise ValueError("a size is a positive whole number")
    return MatrixForm(QuantScheme.parse(scheme), (out_features, in_features))  # type: ignore[arg-type]

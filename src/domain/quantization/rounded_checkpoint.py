"""A checkpoint whose matrices are rounded already, as a network sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from attrs import frozen

from glm3.domain.errors import CheckpointError, ConfigError
from glm3.domain.parameters import from_mindspore_name, is_model_parameter
from glm3.domain.ports.checkpoint_store import CheckpointReader
from glm3.domain.quantization.official import SCALE_SUFFIX, official_forms, repack
from glm3.domain.quantization.packed import PackedWeight, dequantize
from glm3.domain.quantization.scheme import QuantScheme
from glm3.domain.quantization.stored import MatrixForm, PackedHeader, packed_specs
from glm3.domain.tensors import Array, DType, TensorSpec

__all__ = ["RoundedCheckpoint", "refuse_rounded", "rounded_checkpoint"]


@frozen(eq=False)
class RoundedCheckpoint:
    """A reader of what the levels stand for, in float32, which lends the packed weights themselves too."""

    scheme: QuantScheme
    source: CheckpointReader
    forms: Mapping[str, MatrixForm]
    plain: Mapping[str, TensorSpec]
    _packed: Callable[[str], PackedWeight]

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Every parameter by Hugging Face name."""
        matrices = {name: TensorSpec(name, DType.FLOAT32, form.shape) for name, form in self.forms.items()}
        others = {name: TensorSpec(name, spec.dtype, spec.shape) for name, spec in self.plain.items()}
        return matrices | others

    @property
    def metadata(self) -> Mapping[str, str]:
        return {}

    def read(self, name: str, rows: slice | None = None) -> Array:
        if name in self.forms:
            numbers = dequantize(self._packed(name))
            return numbers if rows is None else numbers[rows]
        return self.source.read(self.plain[name].name if name in self.plain else name, rows)

    def packed(self, name: str) -> PackedWeight:
        """Return a matrix of :attr:`forms`; its arrays may be views of the file.

        Raises:
            CheckpointError: what is stored is not what the file says of it.
        """
        return self._packed(name)

    def require_scheme(self, wanted: QuantScheme | None) -> None:
        """Check that a scheme, if one is asked for, is the one of the weights.

        Raises:
            ConfigError: it is another.
        """
        if wanted is not None and wanted != self.scheme:
            raise ConfigError(
                "the weights are rounded already, by another scheme",
                field="quant",
                expected=f"{self.scheme.name}, or nothing",
                found=wanted.name,
                hint="leave the quantisation out, or take the original weights",
            )


def rounded_checkpoint(reader: CheckpointReader, bits: int = 0) -> RoundedCheckpoint | None:
    """Return a checkpoint's rounded weights, or None where they are plain.

    ``bits`` is the configuration's ``quantization_bit``, which says how ChatGLM's own code rounded.

    Raises:
        CheckpointError: a file of packed weights is damaged or of another version, or rounded weights of
            ChatGLM's own code do not go with ``bits``.
    """
    header = PackedHeader.from_metadata(reader.metadata)
    if header is not None:
        return _packed_checkpoint(reader, header)
    if not any(name.endswith(f"weight{SCALE_SUFFIX}") for name in reader.tensors):
        return None
    if bits not in (4, 8):
        raise CheckpointError(
            "the weights are rounded, and the configuration does not say to how many bits",
            field="quantization_bit",
            expected="4 or 8",
            found=bits,
        )
    forms = official_forms(reader.tensors, bits)
    scales = [name + SCALE_SUFFIX for name in forms]
    return RoundedCheckpoint(
        QuantScheme(bits), reader, forms, _plain(reader, {*forms, *scales}), partial(_repacked, reader, forms)
    )


def refuse_rounded(reader: CheckpointReader, doing: str, hint: str | None = None) -> None:
    """Refuse rounded weights where plain ones are needed.

    Raises:
        ConfigError: they are rounded; it says what cannot be done, and by what they are rounded.
        CheckpointError: see :func:`rounded_checkpoint`.
    """
    header = PackedHeader.from_metadata(reader.metadata)
    official = any(name.endswith(f"weight{SCALE_SUFFIX}") for name in reader.tensors)
    if header is not None or official:
        raise ConfigError(
            f"rounded weights cannot be {doing}",
            expected="the weights that they were rounded from",
            found="ChatGLM's own int8 or int4" if header is None else header.scheme.name,
            hint=hint,
        )


def _packed_checkpoint(reader: CheckpointReader, header: PackedHeader) -> RoundedCheckpoint:
    names: set[str] = set()
    for name, form in header.weights.items():
        for wanted in packed_specs(name, form):
            found = reader.tensors.get(wanted.name)
            if found != wanted:
                raise CheckpointError(
                    f"not what {form.scheme.name} stores of a weight {form.shape}",
                    field=wanted.name,
                    expected=f"{wanted.dtype.value} {wanted.shape}",
                    found="nothing" if found is None else f"{found.dtype.value} {found.shape}",
                    hint="the folder is damaged: make it again with glm3 quantize",
                )
            names.add(wanted.name)
    return RoundedCheckpoint(
        header.scheme, reader, header.weights, _plain(reader, names), partial(_mapped, reader, header.weights)
    )


def _plain(reader: CheckpointReader, rounded: set[str]) -> dict[str, TensorSpec]:
    return {
        from_mindspore_name(name): spec
        for name, spec in reader.tensors.items()
        if name not in rounded and is_model_parameter(name)
    }


def _mapped(reader: CheckpointReader, forms: Mapping[str, MatrixForm], name: str) -> PackedWeight:
    form = forms[name]
    return PackedWeight(form.scheme, form.shape, *(reader.read(s.name) for s in packed_specs(name, form)))


def _repacked(reader: CheckpointReader, forms: Mapping[str, MatrixForm], name: str) -> PackedWeight:
    scales = reader.tensors[name + SCALE_SUFFIX]
    return repack(forms[name], name, reader.read(name), reader.read(scales.name), scales.dtype)

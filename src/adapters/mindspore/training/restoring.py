"""Put stored arrays into parameters, once it is known that all of them fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mindspore import Parameter

from glm3.adapters.mindspore.tensors import dtype_of, to_tensor
from glm3.domain.errors import InvalidInputError
from glm3.domain.parameter_check import require_shapes
from glm3.domain.tensors import Array

__all__ = ["require_fit", "set_parameter"]


def require_fit(expected: Mapping[str, Parameter | None], found: Mapping[str, Array]) -> None:
    """Check names, shapes and element types; an expected None is a scalar.

    Raises:
        ParameterMismatchError: names or shapes differ.
        InvalidInputError: an array is stored in another precision.
    """
    require_shapes(
        {name: array.shape for name, array in found.items()},
        {name: () if p is None else tuple(p.shape) for name, p in expected.items()},
    )
    for name, parameter in expected.items():
        if parameter is not None and found[name].dtype != dtype_of(parameter).carrier:
            raise InvalidInputError(
                "stored in another precision",
                field=name,
                expected=dtype_of(parameter).value,
                found=found[name].dtype.name,
            )


def set_parameter(parameter: Parameter, array: Array) -> None:
    """Give a parameter memory of its own with the numbers of ``array``, which carries its dtype."""
    parameter.set_data(to_tensor(np.array(array), dtype_of(parameter)))

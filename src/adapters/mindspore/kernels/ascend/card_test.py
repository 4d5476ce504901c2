"""The operator test port on an Ascend card."""

from __future__ import annotations

from collections.abc import Iterator

from glm3.adapters.mindspore.runtime import prepare
from glm3.domain.ascend_self_test import OperatorOutcome

__all__ = ["AscendOperatorTest"]

_EPSILON = 1e-5


class AscendOperatorTest:
    """Run what MindSpore's package has of the fused operators, at the published network's widths."""

    def run(self) -> Iterator[OperatorOutcome]:
        prepare(target="Ascend")
        from glm3.adapters.mindspore.kernels.ascend.operators import make_operators, present_operators
        from glm3.adapters.mindspore.kernels.ascend.reference import OperatorSettings
        from glm3.adapters.mindspore.kernels.ascend.self_test import Sizes, compare_operators

        sizes = Sizes()
        settings = OperatorSettings(sizes.layout, _EPSILON)
        present = present_operators()
        fused = make_operators(settings, present)
        references = make_operators(settings, ())
        for dtype in ("float16", "bfloat16"):
            yield from compare_operators(
                {name: fused[name] for name in fused if name in present}, references, sizes, dtype
            )
